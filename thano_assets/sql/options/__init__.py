"""``OPTIONS (…)``: what an option is, which ones each statement takes, and what one statement was given.

The one door to :mod:`.spec` (an option and its check), :mod:`.by_statement` (the single source of what is
accepted, with :mod:`.training` and :mod:`.shared`) and :mod:`.given`.
"""

from __future__ import annotations

from thano_assets.sql.options.by_statement import OPTION_SPECS, default, find_spec
from thano_assets.sql.options.given import GivenOption, Options
from thano_assets.sql.options.shared import OF_ASSETS, duration
from thano_assets.sql.options.spec import OptionSpec

__all__ = [
    "OF_ASSETS",
    "OPTION_SPECS",
    "GivenOption",
    "OptionSpec",
    "Options",
    "default",
    "duration",
    "find_spec",
]
