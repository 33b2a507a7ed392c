"""Rows of Parquet files, whose types are the file's own unless a person chose others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..warehouse import describe, quote
from . import lossless
from .options import ReadOptions

if TYPE_CHECKING:
    import duckdb


def typed(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Path], options: ReadOptions, notes: list[str]
) -> tuple[str, list[str]]:
    """A query that gives the rows of all files, and the names of its columns.

    Args:
        connection: reads the files.
        files: the files; a column that some of them lack is NULL in their rows.
        options: types that a person chose.
        notes: takes what a person should know.
    """
    listed = lossless.text_literal_list([str(file) for file in files])
    sql = f"SELECT * FROM read_parquet({listed})"
    if len(files) > 1:
        notes += _differences(connection, files)
        sql = f"SELECT * FROM read_parquet({listed}, union_by_name = true)"
    columns = describe(connection, sql)
    names = [column.name for column in columns]
    notes += _renamed(files[0], names) if len(files) == 1 else []
    expressions = []
    for number, column in enumerate(columns):
        type_ = "VARCHAR" if options.all_text else options.type_of(column.name)
        text = f"CAST({quote(column.name)} AS VARCHAR)"
        if type_ is None or type_ == column.type:
            expressions.append(quote(column.name))
        elif type_ == "VARCHAR":
            expressions.append(f"{text} AS {quote(column.name)}")
        else:
            expressions.append(lossless.given(column.name, type_).expression(number, text=text))
    return f"SELECT {', '.join(expressions)} FROM ({sql})", names


def _differences(connection: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> list[str]:
    """Which files lack columns that others have; they are NULL in their rows."""
    names: dict[Path, list[str]] = {}
    for file in files:
        described = connection.execute(
            f"DESCRIBE SELECT * FROM read_parquet({lossless.text_literal_list([str(file)])})"
        ).fetchall()
        names[file] = [row[0] for row in described]
    every = dict.fromkeys(name for columns in names.values() for name in columns)
    notes = []
    for file, columns in names.items():
        lacking = [name for name in every if name.casefold() not in {one.casefold() for one in columns}]
        if lacking:
            notes.append(f"'{file.name}' has no column {', '.join(lacking[:8])}: NULL in its rows.")
    return notes


def _renamed(file: Path, names: list[str]) -> list[str]:
    """What DuckDB calls otherwise than the file, or reads as another type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return []  # DuckDB read it; the notes are a courtesy
    notes = [
        f"The column {field.name!r} of '{file.name}' is {name} in the table."
        for field, name in zip(schema, names, strict=False)
        if field.name != name
    ]
    return notes + [
        f"Column {name} is a duration in '{file.name}': the table has its number of units ({field.type})."
        for field, name in zip(schema, names, strict=False)
        if pa.types.is_duration(field.type)
    ]
