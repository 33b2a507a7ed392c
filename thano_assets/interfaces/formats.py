"""A result's rows as data: CSV, JSON, Markdown and Parquet, complete and without decoration.

Text formats are written batch by batch, so the text of a large result is never held as a whole.
Values that a format has no word for keep their meaning: lists, maps and structs become JSON in CSV, a date is
its ISO text in JSON, a number that JSON cannot say (NaN, infinity) is ``null`` there.
"""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from thano_assets.errors import ResultError
from thano_assets.results import as_text, has_interval, python_values

if TYPE_CHECKING:
    import pyarrow as pa

DATA_FORMATS = ("csv", "json", "markdown", "parquet", "xlsx")
#: Those that are no text.
BINARY_FORMATS = ("parquet", "xlsx")

#: File name endings from which ``-o FILE`` takes its format.
SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".md": "markdown",
    ".markdown": "markdown",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".txt": "table",
}

_BATCH_ROWS = 4096
_SHEET_ROWS, _SHEET_COLUMNS, _CELL_CHARACTERS = 1_048_576, 16_384, 32_767


#: What JSON has no number for, in the words of JavaScript and of DuckDB's JSON.
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _number(value: decimal.Decimal) -> int | float | str:
    """A decimal as a JSON number that has its value, or as text where readers would round it."""
    if value == value.to_integral_value():
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)


def plain(value: Any) -> Any:
    """``value`` as Arrow gives it, in words that JSON has (maps become objects, dates ISO text)."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _NOT_FINITE[str(value)]
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        # Arrow gives a map as a list of (key, value) pairs; no other type yields tuples inside a list.
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {key_text(key): plain(item) for key, item in value}
        return [plain(item) for item in value]
    return str(value)


def key_text(key: Any) -> str:
    """A map's key as the text that a JSON object needs."""
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(plain(key))


def weighted_words(value: Any) -> list[tuple[str, float]] | None:
    """The words and weights of an explanation, as EXPLAIN PREDICT gives it; ``None`` for other values."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if not all(isinstance(item, dict) and item.keys() == {"token", "weight"} for item in value):
        return None
    return [(str(item["token"]), float(item["weight"] or 0.0)) for item in value]


def words_text(words: Sequence[tuple[str, float]]) -> str:
    """``boring +3.10, fine -0.25``."""
    return ", ".join(f"{word} {weight:+.2f}" for word, weight in words)


def scalar_text(value: Any) -> str:
    """One value as the text of a CSV or Markdown cell; NULL is the empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, (float, decimal.Decimal)):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(plain(value))


def rows(table: pa.Table) -> Iterator[list[Any]]:
    """The rows of ``table`` as Python values, read in batches of a few thousand."""
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        columns = [python_values(column) for column in batch.columns]
        for at in range(batch.num_rows):
            yield [column[at] for column in columns]


def write_csv(table: pa.Table, out: IO[str]) -> None:
    """RFC 4180 with a header line and ``\\n`` ends; NULL is an empty field, the empty text ``""``."""
    out.write(",".join(_csv_field(name) for name in table.column_names) + "\n")
    for row in rows(table):
        line = ",".join("" if value is None else _csv_field(scalar_text(value)) for value in row)
        # A row of one NULL would be a blank line, which readers skip.
        out.write((line or '""') + "\n")


def objects(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows as objects of JSON, by the names of the columns."""
    names = _unique(table.column_names)
    for row in rows(table):
        yield {name: plain(value) for name, value in zip(names, row, strict=True)}


def write_json(table: pa.Table, out: IO[str]) -> None:
    """A JSON array with one object a row, one row a line."""
    out.write("[")
    separator = "\n"
    for record in objects(table):
        out.write(separator + json.dumps(record, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    out.write("\n]\n" if table.num_rows else "]\n")


def write_markdown(table: pa.Table, out: IO[str]) -> None:
    """A GitHub-flavoured table; bars are escaped and line breaks become ``<br>``."""
    out.write("| " + " | ".join(_markdown_cell(name) for name in table.column_names) + " |\n")
    out.write(
        "|" + "|".join(" ---: " if is_number(field.type) else " --- " for field in table.schema) + "|\n"
    )
    for row in rows(table):
        out.write("| " + " | ".join(_markdown_cell(scalar_text(value)) for value in row) + " |\n")


def write_parquet(table: pa.Table, out: IO[bytes]) -> None:
    """One Parquet file with the result's own types, Zstandard-compressed; intervals are text."""
    import pyarrow.parquet as pq

    for number, field in enumerate(table.schema):
        if has_interval(field.type):
            table = table.set_column(number, field.name, as_text(table[number]))
    pq.write_table(table, out, compression="zstd")


def write_xlsx(table: pa.Table, out: IO[bytes]) -> None:
    """A workbook with one sheet; texts are never formulas, and numbers that a cell would round are text.

    Raises:
        ResultError: more rows or columns than a sheet has, or a text longer than a cell holds.
    """
    import xlsxwriter

    if table.num_rows >= _SHEET_ROWS or table.num_columns > _SHEET_COLUMNS:
        raise ResultError(
            f"A sheet has {_SHEET_ROWS:,} rows and {_SHEET_COLUMNS:,} columns, and the result has "
            f"{table.num_rows:,} rows under the names of {table.num_columns:,} columns.",
            hint="Write CSV or Parquet, or fewer rows.",
        )
    with xlsxwriter.Workbook(out, {"in_memory": True, "default_date_format": "yyyy-mm-dd"}) as book:
        sheet = book.add_worksheet()
        moments = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        # The mark with which Excel says that a cell is text; it is not part of the text.
        quoted = book.add_format({"quote_prefix": True})
        for row, values in enumerate(itertools.chain([table.column_names], rows(table))):
            for column, value in enumerate(values):
                _write_cell(sheet, row, column, value, moments, quoted)


def _write_cell(sheet: Any, row: int, column: int, value: Any, moments: Any, quoted: Any) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if value is None:
        return
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif number is not None and abs(number) <= 2**53 and math.isfinite(number):
        sheet.write_number(row, column, number)
    elif isinstance(value, dt.datetime) and value.year >= 1900 and value.tzinfo is None:
        sheet.write_datetime(row, column, value, moments)
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime) and value.year >= 1900:
        sheet.write_datetime(row, column, value)
    else:
        text = scalar_text(value)
        if len(text) > _CELL_CHARACTERS:
            raise ResultError(
                f"A text of {len(text):,} characters stands in row {row:,} of the result, and a cell holds "
                f"{_CELL_CHARACTERS:,}.",
                hint="Write CSV or Parquet.",
            )
        sheet.write_string(row, column, text, quoted if text[:1] in tuple("=+-@") else None)


def format_of(output: str) -> str:
    """The format that the ending of a file's name tells.

    Raises:
        ResultError: it tells none.
    """
    suffix = Path(output).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    ending = f"The ending {suffix}" if suffix else "A name without an ending"
    raise ResultError(
        f"{ending} tells no format to write '{output}' in.",
        hint=f"Endings that do are {', '.join(SUFFIXES)}; --format csv (or another) goes before the ending.",
    )


def write(table: pa.Table, format: str, out: IO[str] | IO[bytes]) -> None:
    """Write ``table`` in one of :data:`DATA_FORMATS`; :data:`BINARY_FORMATS` want a binary stream."""
    writers: dict[str, Callable[[pa.Table, Any], None]] = {
        "csv": write_csv,
        "json": write_json,
        "markdown": write_markdown,
        "parquet": write_parquet,
        "xlsx": write_xlsx,
    }
    writers[format](table, out)


def write_file(table: pa.Table, format: str, path: Path) -> None:
    """Write to a hidden file beside ``path`` and exchange it, so a reader never meets half a file."""
    beside = path.with_name(f".{path.name}.part")
    try:
        if format in BINARY_FORMATS:
            with beside.open("wb") as binary:
                write(table, format, binary)
        else:
            with beside.open("w", encoding="utf-8", newline="") as text:
                write(table, format, text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def is_number(arrow_type: pa.DataType) -> bool:
    """Whether a column of this type is right-aligned."""
    import pyarrow.types as types

    return bool(types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type))


def _csv_field(text: str) -> str:
    if text == "" or any(mark in text for mark in ',"\n\r') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def _markdown_cell(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("|", "\\|")
    return "<br>".join(text.splitlines())


def _unique(names: Sequence[str]) -> list[str]:
    """Column names made distinct (``a``, ``a_1``), since a JSON object has each key once."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique
