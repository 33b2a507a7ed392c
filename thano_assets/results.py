"""What a statement answers with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass
class Result:
    """The answer to one statement.

    Attributes:
        kind: The kind of statement (``'BUILD MODEL'``, ``'QUERY'``, …).
        statement: Its text.
        summary: One line for a person.
        warnings: Sentences about what the person may want to change.
        seconds: How long it took, in seconds.
        run_id: The Dagster run, where something was materialized.
        mlflow_run_id: The MLflow run, where a model was built.
        assets: Keys of what was materialized, as ``group/name``.
        kept_as: The warehouse table that keeps the rows.
        row_count: Rows of the answer, where there are any.
    """

    kind: str
    statement: str
    summary: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    run_id: str | None = None
    mlflow_run_id: str | None = None
    assets: list[str] = field(default_factory=list)
    kept_as: str | None = None
    row_count: int | None = None
    rows: pa.Table | None = field(default=None, repr=False)
    load: Callable[[int | None], pa.Table] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, kind: str, statement: str, rows: pa.Table) -> Result:
        """A result that is nothing but its rows."""
        return cls(kind, statement, counted(rows.num_rows, "row"), row_count=rows.num_rows, rows=rows)

    @property
    def table(self) -> pa.Table | None:
        """All rows of the answer; ``None`` where it has none.

        Rows that the warehouse keeps are read when they are first asked for, so that a large
        prediction nobody looks at costs no memory.
        """
        if self.rows is None and self.load is not None:
            self.rows = self.load(None)
        return self.rows

    def head(self, count: int) -> pa.Table | None:
        """The first ``count`` rows, without reading the others."""
        if self.rows is None and self.load is not None:
            return self.load(count)
        return None if self.rows is None else self.rows.slice(0, count)

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table (one without columns where the answer has none)."""
        import pyarrow as pa

        table = self.table
        return pa.table({}) if table is None else table

    def df(self) -> pd.DataFrame:
        """All rows as a pandas DataFrame."""
        return self.arrow().to_pandas()

    def _repr_html_(self) -> str:
        html: str = self.df().to_html(max_rows=20, notebook=True)
        return html
