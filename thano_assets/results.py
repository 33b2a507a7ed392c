"""What a statement answers with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def python_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """A column as Python values; as DuckDB's text where Python has no word for one: see :func:`_beyond`."""
    if _beyond(column):
        return list(as_text(column).to_pylist())
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return list(as_text(column).to_pylist())


def as_text(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """A column in DuckDB's words."""
    import duckdb
    import pyarrow as pa

    with duckdb.connect() as connection:
        connection.register("values_", pa.table({"v": column}))
        return connection.sql("SELECT CAST(v AS VARCHAR) AS v FROM values_").to_arrow_table().column(0)


def data_frame(table: pa.Table) -> pd.DataFrame:
    """``table`` as a pandas DataFrame in which no value differs; see :meth:`Result.df`."""
    import pandas as pd
    import pyarrow as pa

    nullable = {
        pa.type_for_alias(name.lower()): getattr(pd, f"{name}Dtype")()
        for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    }
    for number, of in enumerate(table.schema):
        if _beyond(table[number]):
            table = table.set_column(number, of.name, as_text(table[number]))
    frame = table.to_pandas()
    for number, column in enumerate(table.columns):
        if column.type in nullable and column.null_count:
            frame.isetitem(number, column.to_pandas(types_mapper=nullable.get))
    return frame


def has_interval(type_: pa.DataType) -> bool:
    """Whether a type is, or has inside, DuckDB's intervals, which neither Python nor Parquet has."""
    return "month_day_nano_interval" in str(type_)


def _beyond(column: pa.ChunkedArray | pa.Array) -> bool:
    """Whether Python lacks a word for a value: a date beyond the year 9999, 24:00:00, an interval."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if has_interval(column.type):
        return True
    if not pa.types.is_temporal(column.type) and not pa.types.is_nested(column.type):
        return False
    try:
        if pa.types.is_time(column.type):
            nanoseconds = column.cast(pa.time64("ns")).cast(pa.int64()).to_numpy(zero_copy_only=False)
            return bool(((nanoseconds >= _DAY) | (nanoseconds % 1000 > 0)).any())
        simple = pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)
        pc.min_max(column).as_py() if simple else column.to_pylist()
    except (OverflowError, ValueError):
        return True
    return False


_DAY = 86_400_000_000_000  # nanoseconds


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
        """All rows as a pandas DataFrame.

        Whole numbers stay whole where some are NULL (pandas' ``Int64`` and its kin), and a column of dates is
        text where a date is beyond those that Python has.
        """
        return data_frame(self.arrow())

    def _repr_html_(self) -> str:
        html: str = self.df().to_html(max_rows=20, notebook=True)
        return html
