"""Rows as data: what a format cannot say is said another way, and nothing is added."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thano_assets.interfaces import formats

AWKWARD = pa.table(
    {
        "text": ['plain, "quoted"', "two\nlines", "", None],
        "number": pa.array([1.5, float("nan"), float("inf"), None], pa.float64()),
        "proba": pa.array(
            [[("pos", 0.75), ("neg", 0.25)], [], [("pos", None)], None], pa.map_(pa.string(), pa.float64())
        ),
        "vector": [[0.5, 1.0], [], [None], None],
        "day": [dt.date(2024, 2, 29), None, None, None],
        "exact": pa.array([decimal.Decimal("1.10"), None, None, None], pa.decimal128(5, 2)),
        "yes": [True, False, None, None],
    }
)


def text_of(format: str, table: pa.Table) -> str:
    out = io.StringIO()
    formats.write(table, format, out)
    return out.getvalue()


def test_csv_is_read_back_by_a_csv_reader() -> None:
    rows = list(csv.DictReader(io.StringIO(text_of("csv", AWKWARD))))
    assert [row["text"] for row in rows] == ['plain, "quoted"', "two\nlines", "", ""]
    assert json.loads(rows[0]["proba"]) == {"pos": 0.75, "neg": 0.25}
    assert rows[0]["day"] == "2024-02-29"
    assert rows[0]["exact"] == "1.10"
    assert [row["yes"] for row in rows] == ["true", "false", "", ""]


def test_csv_tells_null_from_the_empty_text() -> None:
    assert text_of("csv", pa.table({"a": ["", None], "b": [1, 2]})) == 'a,b\n"",1\n,2\n'


def test_csv_has_no_blank_line_for_a_row_of_one_null() -> None:
    assert text_of("csv", pa.table({"a": pa.array([None], pa.string())})) == 'a\n""\n'


def test_json_is_strict_and_keeps_structure() -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    rows = json.loads(text_of("json", AWKWARD), parse_constant=no_constant)
    assert rows[0]["proba"] == {"pos": 0.75, "neg": 0.25}
    assert rows[0]["vector"] == [0.5, 1.0]
    assert rows[1]["number"] == "NaN"
    assert rows[2]["number"] == "Infinity"
    assert rows[3] == dict.fromkeys(AWKWARD.column_names)


def test_json_of_no_rows_and_of_columns_with_one_name() -> None:
    assert json.loads(text_of("json", AWKWARD.slice(0, 0))) == []
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert json.loads(text_of("json", twice)) == [{"a": 1, "a_1": 2}]


def test_markdown_keeps_one_line_a_row() -> None:
    lines = text_of("markdown", pa.table({"a|b": ["x|y\nz"], "n": [1]})).splitlines()
    assert lines == [r"| a\|b | n |", "| --- | ---: |", r"| x\|y<br>z | 1 |"]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    formats.write_file(AWKWARD, "parquet", tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").schema.equals(AWKWARD.schema)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(formats, "write_csv", full_disk)
    with pytest.raises(OSError, match="no space"):
        formats.write_file(AWKWARD, "csv", target)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert target.read_text() == "old"


def test_many_rows_are_written_in_batches() -> None:
    table = pa.table({"n": list(range(10_000))})
    assert text_of("csv", table).splitlines() == ["n", *map(str, range(10_000))]


class TestWorkbook:
    """``-o FILE.xlsx`` gives a real workbook."""

    def cells(self, table: pa.Table) -> list[list[object]]:
        import python_calamine

        out = io.BytesIO()
        formats.write_xlsx(table, out)
        sheet = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(out.getvalue()))
        return sheet.get_sheet_by_index(0).to_python()

    def test_values_come_back(self) -> None:
        table = pa.table(
            {
                "text": ["=1+1", "+5", "-a", "@x", "007", "좋은 영화"],
                "number": [1, -2, 2**53, 2**53 + 1, None, 0],
                "day": [dt.date(2024, 2, 29), None, None, None, None, None],
            }
        )
        rows = self.cells(table)
        assert rows[0] == ["text", "number", "day"]
        assert [row[0] for row in rows[1:]] == table["text"].to_pylist()
        assert [row[1] for row in rows[1:]] == [1, -2, 2**53, str(2**53 + 1), "", 0]
        assert rows[1][2] == dt.date(2024, 2, 29)

    def test_text_that_looks_like_a_formula_is_text(self) -> None:
        import zipfile

        out = io.BytesIO()
        formats.write_xlsx(pa.table({"a": ["=HYPERLINK(1)", "+1", "-1", "@a"]}), out)
        with zipfile.ZipFile(io.BytesIO(out.getvalue())) as archive:
            assert b"<f>" not in archive.read("xl/worksheets/sheet1.xml")
            assert b'quotePrefix="1"' in archive.read("xl/styles.xml")

    def test_a_text_longer_than_a_cell_is_refused(self) -> None:
        from thano_assets.errors import ResultError

        with pytest.raises(ResultError, match="40,000 characters"):
            formats.write_xlsx(pa.table({"a": ["x" * 40_000]}), io.BytesIO())


@pytest.mark.parametrize("name", ["out.xls", "out.data", "out", "out.csv.bak"])
def test_unknown_endings_are_refused(name: str) -> None:
    from thano_assets.errors import ResultError

    with pytest.raises(ResultError, match="xlsx"):
        formats.format_of(name)


def test_numbers_that_json_readers_would_round_are_text() -> None:
    table = pa.table(
        {
            "whole": pa.array([decimal.Decimal("12345678901234567890")], pa.decimal128(38, 0)),
            "long": pa.array([decimal.Decimal("123456789012345678.12")], pa.decimal128(20, 2)),
            "short": pa.array([decimal.Decimal("1.10")], pa.decimal128(4, 2)),
        }
    )
    assert json.loads(text_of("json", table)) == [
        {"whole": 12345678901234567890, "long": "123456789012345678.12", "short": 1.1}
    ]


def test_intervals_and_the_end_of_a_day_are_told_in_words() -> None:
    import duckdb

    table = duckdb.sql(
        "SELECT INTERVAL 26 HOUR AS i, TIME '24:00:00' AS t, [INTERVAL 1 DAY] AS l"
    ).to_arrow_table()
    assert text_of("csv", table) == "i,t,l\n26:00:00,24:00:00,[1 day]\n"
    out = io.BytesIO()
    formats.write_parquet(table, out)
    assert pq.read_table(io.BytesIO(out.getvalue()))["i"].to_pylist() == ["26:00:00"]
