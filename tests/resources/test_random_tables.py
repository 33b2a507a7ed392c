"""Random tables written as files and read back: no value differs without a note that names its column.

Some hundred tables by default; ``pytest --hypothesis-profile long tests/resources/test_random_tables.py`` takes
ten thousand.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from thano_assets.resources.reading import lossless
from thano_assets.resources.reading.options import ReadOptions
from thano_assets.resources.reading.source import RawSource, ReadAgain

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252", "cp949", "latin-1")

digits = st.integers(-(10**18), 10**18)
spellings = st.one_of(
    st.integers(-1000, 1000).map(str),
    digits.map(str),
    st.integers(0, 99_999).map(lambda number: f"{number:05d}"),
    st.decimals(-1000, 1000, places=2).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1.10", "1.1", "10.00", "10", "007", "12E3", "1e5", "+5", " 5", "5 ", ".5", "5.", "-0"]),
    st.sampled_from(["yes", "no", "t", "f", "true", "false", "True", "FALSE", "1", "0", "nan", "NULL", "NA"]),
    st.dates(dt.date(1, 1, 1)).map(str),
    st.datetimes(dt.datetime(1900, 1, 1)).map(str),
    st.sampled_from(["1/2/2020", "25-11-2025", "10:30", "10:30:00", "2024-01-02T03:04:05", "20240-01-02"]),
)
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=30
).filter(lambda text: text.strip() == text)
western = st.text("abc äöü éñ ,;|\"'\t\n", max_size=20).filter(lambda text: text.strip() == text)


@st.composite
def columns(draw: Callable[..., Any], text: st.SearchStrategy[str] = texts) -> list[list[str | None]]:
    """One to four columns of equal length; most keep to one kind of spelling and may end in another."""
    rows = draw(st.integers(1, 12))
    made = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([st.integers(0, 99).map(str), digits.map(str), spellings, text, text]))
        values = [draw(kind) for _ in range(rows)]
        if draw(st.booleans()):
            values[-1] = draw(spellings)
        if draw(st.booleans()):
            values[draw(st.integers(0, rows - 1))] = None
        made.append(values)
    return made


def load(
    connection: duckdb.DuckDBPyConnection, source: RawSource
) -> tuple[list[str], list[tuple], list[str]]:
    """The types, the values as DuckDB spells them, and the notes."""
    while True:
        try:
            with source.relation(connection) as relation:
                connection.execute(f"CREATE OR REPLACE TEMP TABLE t AS {relation.sql}")
                described = connection.execute("DESCRIBE t").fetchall()
                shown = ", ".join(f'CAST("{row[0]}" AS VARCHAR)' for row in described)
                values = connection.execute(f"SELECT {shown} FROM t").fetchall()
                return [row[1] for row in described], values, relation.notes
        except ReadAgain as again:
            source = again.source


def same(text: str | None, stored: str | None, type_: str) -> bool:
    """Whether a spelling and what became of it are one value, but for what every widening does."""
    if text == stored or text is None or stored is None:
        return text == stored
    if type_ == "DOUBLE" and "." not in text:
        return Decimal(text) == Decimal(stored)  # 3 as 3.0 among decimals
    return type_ == "TIMESTAMP" and stored == f"{text} 00:00:00"  # a day among times


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture(scope="module", autouse=True)
def _early_surprises() -> Iterator[None]:
    """The rows that types are inferred from at first are few, so that short tables have late surprises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lossless, "SAMPLE_ROWS", 4)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


def check(
    names: list[str], written: list[list[str | None]], read: tuple[list[str], list[tuple], list[str]]
) -> None:
    types, values, notes = read
    if any("quotes are characters" in note for note in notes):
        return  # a text with tabs and line breaks may look like one with stray quotes; it is said
    assert len(values) == len(written[0])
    for number, name in enumerate(names):
        announced = any(f"Column {name} " in note for note in notes)
        for row, text in zip(values, written[number], strict=True):
            if not same(text, row[number], types[number]):
                assert announced, (name, types[number], text, row[number], notes)
                if text == "":
                    assert row[number] is None
                elif types[number] == "DOUBLE":
                    assert Decimal(str(text)) == Decimal(row[number])
                else:
                    assert type_of_time(types[number])
                    assert str(text).replace("T", " ").rstrip("0") == row[number].rstrip("0")


def type_of_time(type_: str) -> bool:
    return type_ in ("TIMESTAMP", "DATE")


@given(
    written=st.one_of(columns(), columns(western)),
    delimiter=st.sampled_from(",;\t|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    quote_all=st.booleans(),
    blank=st.integers(0, 2),
    last=st.booleans(),
    encoding=st.sampled_from(ENCODINGS),
)
def test_csv(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    written: list[list[str | None]],
    delimiter: str,
    ends: str,
    quote_all: bool,
    blank: int,
    last: bool,
    encoding: str,
) -> None:
    names = [f"name_{number}" for number in range(len(written))]
    if len(names) == 1:
        written = [[value or "x" for value in written[0]]]  # a blank line is no row at a file's end

    def field(value: str | None) -> str:
        if value is None:
            return ""
        if (
            quote_all
            or not value
            or value != value.strip()
            or any(mark in value for mark in f'{delimiter}"\n#')
        ):
            return '"' + value.replace('"', '""') + '"'
        return value

    lines = [delimiter.join(names), *(delimiter.join(map(field, row)) for row in zip(*written, strict=True))]
    content = ends * blank + ends.join(lines) + (ends if last else "")
    try:
        data = content.encode(encoding)
    except UnicodeEncodeError:
        encoding, data = "utf-8", content.encode()
    path = folder / "t.csv"
    path.write_bytes(data)
    options = ReadOptions(
        encoding=None if encoding.startswith("utf-8") else encoding, header=True, delimiter=delimiter
    )
    check(names, written, load(connection, RawSource([path], "csv", len(data), None, folder, options)))


json_values = st.one_of(
    st.none(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    spellings,
    texts,
)


@given(
    rows=st.lists(
        st.fixed_dictionaries({"a": json_values, "b": spellings, "c": digits}), min_size=1, max_size=10
    ),
    lines=st.booleans(),
)
def test_json(
    connection: duckdb.DuckDBPyConnection, folder: Path, rows: list[dict[str, Any]], lines: bool
) -> None:
    path = folder / ("t.jsonl" if lines else "t.json")
    content = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    path.write_text(content, encoding="utf-8")
    source = RawSource([path], path.suffix[1:], len(content), None, folder)
    types, values, _ = load(connection, source)
    names = [row[0] for row in connection.execute("DESCRIBE t").fetchall()]
    for number, name in enumerate(names):
        for row, stored in zip(rows, values, strict=True):
            value, text = row[name], stored[number]
            if value is None or isinstance(value, str):
                assert text == value
            elif isinstance(value, bool):
                assert text == str(value).lower()
            elif isinstance(value, int):
                assert Decimal(text) == value
            else:
                assert float(text) == value
            if isinstance(value, str):
                assert types[number] == "VARCHAR"


cells = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(-1e12, 1e12, allow_nan=False),
    st.booleans(),
    spellings,
    st.text("abc äöü 한국 ,;\"'=+", min_size=1, max_size=20).filter(
        lambda text: text.strip() == text and text
    ),
)


@given(
    column=st.one_of(
        st.lists(cells, min_size=1, max_size=12),
        st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=12),
        st.lists(spellings, min_size=1, max_size=12),
    )
)
def test_xlsx(connection: duckdb.DuckDBPyConnection, folder: Path, column: list[Any]) -> None:
    path = folder / "t.xlsx"
    with xlsxwriter.Workbook(path, {"strings_to_formulas": False}) as book:
        sheet = book.add_worksheet()
        for row, values in enumerate(
            [("key_name", "value_name"), *((f"k{n}", v) for n, v in enumerate(column))]
        ):
            for place, value in enumerate(values):
                if isinstance(value, str):
                    sheet.write_string(row, place, value)
                else:
                    sheet.write(row, place, value)
    options = ReadOptions(header=True)
    types, values, _ = load(connection, RawSource([path], "xlsx", path.stat().st_size, None, folder, options))
    for value, (_, text) in zip(column, values, strict=True):
        if isinstance(value, str):
            assert text == value
            assert types[1] == "VARCHAR"
        elif isinstance(value, bool):
            assert text == str(value).lower()
        else:  # xlsxwriter writes 16 digits of a number
            assert math.isclose(float(text), value, rel_tol=1e-15)


@given(
    column=st.one_of(
        st.lists(st.one_of(st.none(), digits), min_size=1),
        st.lists(st.one_of(st.none(), texts), min_size=1),
        st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), min_size=1),
        st.lists(st.decimals(-(10**6), 10**6, places=3), min_size=1),
        st.lists(st.dates(), min_size=1),
    )
)
def test_parquet(connection: duckdb.DuckDBPyConnection, folder: Path, column: list[Any]) -> None:
    path = folder / "t.parquet"
    table = pa.table({"value_name": column})
    pq.write_table(table, path)
    load(connection, RawSource([path], "parquet", path.stat().st_size, None, folder))
    assert [row[0] for row in connection.execute("FROM t").fetchall()] == column
