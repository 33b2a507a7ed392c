"""The language: text in, typed statements out.

``parse`` reads ThanoSQL-like text; queries inside it are kept as they were written and judged by
DuckDB's own parser. Nothing here knows Dagster, models, MLflow or files.
"""

from __future__ import annotations

from thano_assets.sql.options import OPTION_SPECS, Options, OptionSpec
from thano_assets.sql.parser import parse
from thano_assets.sql.source import Span
from thano_assets.sql.statements import Statement

__all__ = ["OPTION_SPECS", "OptionSpec", "Options", "Span", "Statement", "parse"]
