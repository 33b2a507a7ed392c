"""COPY's files: what is in the table is what the file says, and what was decided is said."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from thano_assets.errors import DataFileError
from thano_assets.resources.reading.dialect import has_header
from thano_assets.resources.reading.options import ReadOptions
from thano_assets.resources.reading.source import ReadAgain, raw_source
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session
from thano_assets.sql import Options

LATE = 20_600  # rows before the surprise: more than types are inferred from at first

Loaded = tuple[dict[str, str], list[tuple[Any, ...]], list[str]]


@pytest.fixture
def put(workspace: Workspace) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = workspace.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def load(workspace: Workspace) -> Callable[..., Loaded]:
    """The types by column, the rows, and the notes of a COPY."""

    def read(path: str, **options: Any) -> Loaded:
        given = ReadOptions.of(dict(Options.of("COPY", **options)))
        source = raw_source(workspace, path=path, options=given)
        with duckdb.connect() as connection:
            while True:
                try:
                    with source.relation(connection) as relation:
                        rows = connection.execute(relation.sql).fetchall()
                        return {c.name: c.type for c in relation.columns}, rows, relation.notes
                except ReadAgain as again:
                    source = again.source

    return read


def make_sheet(path: Path, rows: list[list[Any]], more: dict[str, list[list[Any]]] | None = None) -> None:
    with xlsxwriter.Workbook(path) as book:
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        for name, cells in {"first": rows, **(more or {})}.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(cells):
                for column, value in enumerate(row):
                    if value == "=1/0":
                        sheet.write_formula(number, column, value, None, "#DIV/0!")
                    elif hasattr(value, "year"):
                        sheet.write_datetime(number, column, value, day)
                    elif value is not None:
                        sheet.write(number, column, value)


class TestLateValues:
    @pytest.mark.parametrize(
        ("first", "late", "type_", "stored"),
        [
            ("3", ["2.5", "4.7"], "DOUBLE", [2.5, 4.7]),
            ("123", ["00123"], "VARCHAR", ["00123"]),
            ("2024-02-03", ["2024-02-03 14:15:16"], "TIMESTAMP", ["2024-02-03 14:15:16"]),
            ("true", ["t", "1", "yes"], "VARCHAR", ["t", "1", "yes"]),
            ("0.5", ["9007199254740993"], "VARCHAR", ["9007199254740993"]),
            ("2024-02-03", ["3.2.2024"], "VARCHAR", ["3.2.2024"]),
            ("7", ["1e3"], "VARCHAR", ["1e3"]),
        ],
    )
    def test_types_hold_what_comes_after_the_sample(
        self, put: Callable, load: Callable, first: str, late: list[str], type_: str, stored: list[Any]
    ) -> None:
        rows = [f"{first},x\n"] * LATE + [f"{value},late\n" for value in late]
        put("a.csv", "v,txt\n" + "".join(rows))
        types, found, _ = load("a.csv")
        assert types["v"] == type_
        values = [row[0] for row in found if row[1] == "late"]
        assert [str(value) if type_ == "TIMESTAMP" else value for value in values] == stored
        assert len(found) == LATE + len(late)

    def test_json_numbers_and_texts(self, put: Callable, load: Callable) -> None:
        put("a.jsonl", '{"v": 2, "w": 1}\n' * LATE + '{"v": 2.5, "w": "seven"}\n')
        types, rows, notes = load("a.jsonl")
        assert types == {"v": "DOUBLE", "w": "VARCHAR"}
        assert rows[-1] == (2.5, "seven")
        assert rows[0] == (2.0, "1")
        assert notes == ["Column w is text: its values are of several kinds."]

    def test_excel_text_below_numbers(self, workspace: Workspace, load: Callable) -> None:
        make_sheet(
            workspace.data / "a.xlsx", [["txt", "label"], *([["a", 7]] * 1500), ["late", "seven"], ["b", 9]]
        )
        types, rows, notes = load("a.xlsx")
        assert types["label"] == "VARCHAR"
        assert rows[-2:] == [("late", "seven"), ("b", "9")]
        assert notes == ["Column label is text: its cells are of several kinds."]


class TestSpelling:
    @pytest.mark.parametrize(
        "values",
        [
            ["1.10", "1.1"],
            ["yes", "no"],
            ["12E3", "13E3"],
            ["1/2/2020", "3/4/2020"],
            ["007", "8"],
            ["25-11-2025", "26-11-2025"],
            ["+5", "6"],
            ["10:30", "11:30"],
            ["TRUE", "FALSE"],
            ["12345678901234567890", "1"],
            ["2020-01-02", "02.01.2020"],
            ["02.01.2020", "2020-01-02"],
            ["BBD05AE7-0CF4-4C3B-9F0E-6F3A2B1C0D9E", "x"],
        ],
    )
    def test_texts_stay_as_they_are(self, put: Callable, load: Callable, values: list[str]) -> None:
        put("a.csv", "label,n\n" + "".join(f"{value},1\n" for value in values))
        types, rows, _ = load("a.csv")
        assert types["label"] == "VARCHAR"
        assert [row[0] for row in rows] == values

    def test_zeros_at_the_end_are_said(self, put: Callable, load: Callable) -> None:
        put("a.csv", "price\n10.00\n9.90\n3.25\n")
        types, rows, notes = load("a.csv")
        assert types == {"price": "DOUBLE"}
        assert rows == [(10.0,), (9.9,), (3.25,)]
        assert len(notes) == 1
        assert "Column price is DOUBLE" in notes[0]
        assert "columns={'price': 'VARCHAR'}" in notes[0]
        assert load("a.csv", columns={"price": "VARCHAR"})[1] == [("10.00",), ("9.90",), ("3.25",)]

    def test_two_spellings_of_one_number_are_text_and_that_is_said(
        self, put: Callable, load: Callable
    ) -> None:
        put("a.csv", "v,x\n" + "1.10,a\n1.1,b\n" * 10)
        types, _, notes = load("a.csv")
        assert types["v"] == "VARCHAR"
        assert "another spelling of the same number" in notes[0]

    def test_json_strings_stay_strings(self, put: Callable, load: Callable) -> None:
        put(
            "a.json",
            '[{"code": "25-11-2025", "u": "BBD05AE7-0CF4-4C3B-9F0E-6F3A2B1C0D9E", "t": "10:30", "n": "007"}]',
        )
        types, rows, _ = load("a.json")
        assert set(types.values()) == {"VARCHAR"}
        assert rows == [("25-11-2025", "BBD05AE7-0CF4-4C3B-9F0E-6F3A2B1C0D9E", "10:30", "007")]

    def test_many_keys_stay_columns(self, put: Callable, load: Callable) -> None:
        put("a.jsonl", "".join(f'{{"txt": "t", "opt{number}": {number}}}\n' for number in range(300)))
        types, rows, _ = load("a.jsonl")
        assert len(types) == 301
        assert rows[7][8] == 7

    def test_keys_that_differ_in_case_are_told(self, put: Callable, load: Callable) -> None:
        put("a.json", '[{"A": 1, "a": 2}]')
        with pytest.raises(DataFileError, match="'A' and 'a', which are one name"):
            load("a.json")

    def test_an_empty_text_is_not_null(self, put: Callable, load: Callable) -> None:
        put("a.csv", 'txt,n\n"",1\n,2\n')
        assert load("a.csv")[1] == [("", 1), (None, 2)]

    def test_an_empty_text_among_numbers_is_null_and_counted(self, put: Callable, load: Callable) -> None:
        put("a.csv", 'n,txt\n"1",a\n"",b\n')
        _, rows, notes = load("a.csv")
        assert rows == [(1, "a"), (None, "b")]
        assert any('1 empty text ("") became NULL' in note for note in notes)

    @pytest.mark.parametrize("content", [b"a,b\r\nx,1\ny,2\r\n", b"a,b\nx,1\r\ny,2\n", b"a,b\rx,1\ny,2\r"])
    def test_mixed_line_ends(self, put: Callable, load: Callable, content: bytes) -> None:
        put("a.csv", content)
        assert load("a.csv")[1] == [("x", 1), ("y", 2)]

    @pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\r\n\r\n"])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_blank_lines_at_the_end_of_one_column_are_no_rows(
        self, put: Callable, load: Callable, end: str, pack: Callable[[bytes], bytes]
    ) -> None:
        name = "a.csv.gz" if pack is gzip.compress else "a.csv"
        put(name, pack(f"txt\nfirst\n\nlast{end}".replace("\n", "\r\n" if "\r" in end else "\n").encode()))
        assert load(name)[1] == [("first",), (None,), ("last",)]


class TestDialects:
    def test_each_file_has_its_own(self, put: Callable, load: Callable) -> None:
        put("many/a.csv", "\n\ntxt,label\na,1\n")
        put("many/b.csv", "txt;label\nb;0\n")
        put("many/c.csv", b"\xef\xbb\xbf\nlabel,txt\n1,c\n")
        types, rows, _ = load("many")
        assert types == {"txt": "VARCHAR", "label": "BIGINT"}
        assert rows == [("a", 1), ("b", 0), ("c", 1)]

    def test_a_file_with_other_columns_is_named(self, put: Callable, load: Callable) -> None:
        put("many/a.csv", "txt,label\na,1\n")
        put("many/b.csv", "txt,rating\nb,0\n")
        with pytest.raises(
            DataFileError, match=r"'b.csv' has the columns txt, rating, and 'a.csv' txt, label"
        ):
            load("many")

    @pytest.mark.parametrize(
        ("content", "rows"),
        [
            ("good film,1\nbad film,0\nok film,1\n", [("good film", 1), ("bad film", 0), ("ok film", 1)]),
            ("positive,I loved it\nnegative,Bad\npositive,Fine\n", [("positive", "I loved it"), ("negative", "Bad"), ("positive", "Fine")]),
            ('"3","Wall St. falls","Shares fell."\n"1","Peace","Talks go on."\n', [(3, "Wall St. falls", "Shares fell."), (1, "Peace", "Talks go on.")]),
        ],
    )  # fmt: skip
    def test_no_header_is_seen_and_said(
        self, put: Callable, load: Callable, content: str, rows: list[tuple[Any, ...]]
    ) -> None:
        put("a.csv", content)
        types, found, notes = load("a.csv")
        assert found == rows
        assert list(types) == [f"column{number}" for number in range(len(rows[0]))]
        assert "has no header" in notes[0]

    @pytest.mark.parametrize(
        ("records", "header"),
        [
            ([["text", "label"], ["a", "1"]], True),
            ([["review", "sentiment"], ["good", "positive"], ["bad", "negative"]], True),
            ([["country", "2019", "2020", "2021"], ["KR", "5", "6", "7"]], True),
            ([["", "a", "b"], ["0", "x", "y"]], True),
            ([["0", "1"], ["a", "5"]], True),
            ([["1", "x"], ["2", "y"]], False),
            ([["2024-01-02", "x"], ["2024-01-03", "y"]], False),
            ([["ham", "hello there"], ["spam", "win now"], ["ham", "see you"]], False),
            ([["a", "b"], ["1", "2"], ["a", "b"]], True),
            ([["What do you think of our service overall, all in all?"], ["5"]], True),
            ([["I really did not like this film, it was far too long."], ["It was a wonderful evening for all of us."]], False),
        ],
    )  # fmt: skip
    def test_headers(self, records: list[list[str]], header: bool) -> None:
        assert has_header(records) is header

    def test_names_and_types_for_a_file_without_a_header(self, put: Callable, load: Callable) -> None:
        put("a.tsv", "0\tgood\n1\tbad\n")
        assert load("a.tsv", columns=["label", "txt"])[0] == {"label": "BIGINT", "txt": "VARCHAR"}
        assert load("a.tsv", columns={"label": "VARCHAR", "txt": "VARCHAR"})[1] == [
            ("0", "good"),
            ("1", "bad"),
        ]
        with pytest.raises(DataFileError, match="has 2 columns, and columns names 3"):
            load("a.tsv", columns=["a", "b", "c"])

    def test_quotes_that_do_not_balance_in_a_tsv_are_characters(self, put: Callable, load: Callable) -> None:
        put("a.tsv", 'ham\tI said "yes\nspam\tWIN "500" now\nham\t"quoted" and more\nham\tfine\n')
        _, rows, notes = load("a.tsv")
        assert [row[1] for row in rows] == ['I said "yes', 'WIN "500" now', '"quoted" and more', "fine"]
        assert any("quotes are characters" in note for note in notes)

    def test_quotes_that_hold_tabs_and_breaks_in_a_tsv_are_quotes(
        self, put: Callable, load: Callable
    ) -> None:
        put("a.tsv", 'txt\tn\n"a\tb\tc\nd"\t1\ne\t2\n')
        assert load("a.tsv")[1] == [("a\tb\tc\nd", 1), ("e", 2)]

    def test_lines_of_a_text_file(self, put: Callable, load: Callable) -> None:
        put("a.txt", 'hello, "you"\n\nlast\tone\n\n')
        assert load("a.txt") == ({"text": "VARCHAR"}, [('hello, "you"',), (None,), ("last\tone",)], [])
        put("b.txt", "label\ttext\n1\tgood\n")
        assert load("b.txt", delimiter="\\t")[1] == [(1, "good")]

    def test_notes_beside_tables_are_no_tables(self, put: Callable, load: Callable) -> None:
        put("many/a.csv", "txt,n\na,1\n")
        put("many/README.txt", "Some words about the data.")
        assert load("many")[1] == [("a", 1)]

    def test_comment_lines_above_the_header_are_left_out_and_counted(
        self, put: Callable, load: Callable
    ) -> None:
        put("a.csv", "# made by hand\n# in 2024\ntxt,n\n#1,1\n")
        types, rows, notes = load("a.csv")
        assert (list(types), rows) == (["txt", "n"], [("#1", 1)])
        assert notes == ["'a.csv': 2 lines above the header left out, which begin with #."]
        put("b.csv", "#id,label\n1,x\n")
        assert list(load("b.csv")[0]) == ["#id", "label"]

    def test_a_sep_line_is_obeyed(self, put: Callable, load: Callable) -> None:
        put("a.csv", "sep=;\ntxt;n\na,b;1\n")
        assert load("a.csv")[1] == [("a,b", 1)]

    def test_names_that_come_twice_are_said(self, put: Callable, load: Callable) -> None:
        put("a.csv", "a,A,\n1,2,3\n")
        types, _, notes = load("a.csv")
        assert list(types) == ["a", "A_1", "column2"]
        assert notes == [
            "Two columns are called A: the second is A_1 in the table.",
            "Column 3 has no name in the file: it is column2.",
        ]


class TestOptions:
    def test_they_are_obeyed(self, put: Callable, load: Callable) -> None:
        put("a.csv", "Title\nx|y\n'a|b'|1,5\n!no|1,0\nNA|2,25\n".replace("|", "§"))
        types, rows, _ = load(
            "a.csv", skip=1, delimiter="§", quote="'", comment="!", null=["NA"], decimal=","
        )
        assert types == {"x": "VARCHAR", "y": "DOUBLE"}
        assert rows == [("a§b", 1.5), (None, 2.25)]

    def test_all_text_and_quote_none(self, put: Callable, load: Callable) -> None:
        put("a.csv", 'a,b\n"007",1.50\n')
        assert load("a.csv", all_text=True)[1] == [("007", "1.50")]
        assert load("a.csv", quote=None, all_text=True)[1] == [('"007"', "1.50")]

    def test_a_value_that_is_not_of_its_given_type_is_named(self, put: Callable, load: Callable) -> None:
        put("a.csv", 'txt,n\n"two\nlines",1\nb,2.5\n')
        with pytest.raises(DataFileError, match=r"'a.csv', line 4: '2.5' in column n is no INTEGER"):
            load("a.csv", columns={"n": "INTEGER"})
        _, rows, notes = load("a.csv", columns={"n": "DECIMAL(10, 2)"})
        assert [str(row[1]) for row in rows] == ["1.00", "2.50"]
        assert notes == ["Column n is DECIMAL(10, 2): 2 values are spelled otherwise, such as 1 as 1.00."]

    def test_a_type_for_a_column_that_is_not_there(self, put: Callable, load: Callable) -> None:
        put("a.csv", "a,b\n1,2\n")
        with pytest.raises(DataFileError, match="columns gives a type to c, and the file has no such column"):
            load("a.csv", columns={"c": "VARCHAR"})

    def test_long_rows(self, put: Callable, load: Callable) -> None:
        put("a.csv", "a,b\n" + "x" * 3_000_000 + ",1\n")
        with pytest.raises(DataFileError, match="longer than what is read at once") as caught:
            load("a.csv")
        assert "max_line_size" in str(caught.value.hint)
        assert len(load("a.csv", max_line_size=5_000_000)[1][0][0]) == 3_000_000

    def test_options_of_other_formats_are_refused(self, put: Callable, load: Callable) -> None:
        put("a.csv", "a\n1\n")
        with pytest.raises(DataFileError, match="sheet says nothing about csv files"):
            load("a.csv", sheet="x")


class TestEncodings:
    @pytest.mark.parametrize(
        ("encoding", "text", "named"),
        [
            ("cp1252", "I don’t like it", "cp1252"),
            ("cp949", "좋아요 정말 재미있는 영화였습니다 다시 보고 싶어요", "cp949"),
            ("cp932", "日本語のテキストです。とても良い映画", "cp932"),
            ("koi8-r", "Это очень хороший фильм и он мне понравился", "koi8-r"),
            ("utf-16", "café", "utf-16"),
        ],
    )
    def test_the_advice_reads_the_file(
        self, put: Callable, load: Callable, encoding: str, text: str, named: str
    ) -> None:
        put("a.csv", f"txt,n\n{text},1\n".encode(encoding))
        with pytest.raises(DataFileError, match="is not UTF-8") as caught:
            load("a.csv")
        assert f"encoding='{named}'" in str(caught.value.hint)
        assert load("a.csv", encoding=named)[1] == [(text, 1)]

    def test_where_the_bytes_do_not_tell_both_readings_are_shown(self, put: Callable, load: Callable) -> None:
        put("a.csv", b"txt,n\ncaf\x8e,1\n")
        with pytest.raises(DataFileError) as caught:
            load("a.csv")
        hint = str(caught.value.hint)
        assert hint.startswith(
            "As cp1252 the line reads 'cafŽ,1'; as mac_roman the line reads 'café,1'. Choose"
        )

    def test_a_wrong_encoding_names_the_line(self, put: Callable, load: Callable) -> None:
        put("a.csv", b"txt,n\na,1\n\xff\xff,2\n")
        with pytest.raises(DataFileError, match=r"'a.csv' is not cp949: line 3 has the byte 0xff"):
            load("a.csv", encoding="cp949")


class TestWorkbooks:
    def test_sheets_errors_and_titles_are_said(self, workspace: Workspace, load: Callable) -> None:
        path = workspace.data / "a.xlsx"
        make_sheet(path, [["txt", "n"], ["a", 1], ["b", "=1/0"]], {"Other": [["x"], [1]]})
        types, rows, notes = load("a.xlsx")
        assert (types, rows) == ({"txt": "VARCHAR", "n": "DOUBLE"}, [("a", 1.0), ("b", None)])
        assert notes == [
            "Sheet first of 'a.xlsx' is read; 1 sheet is left out (sheet='…' chooses): Other.",
            "'a.xlsx': 1 cell (B3) holds an error such as #DIV/0!: NULL in the table.",
        ]
        assert load("a.xlsx", sheet="other")[1] == [(1.0,)]
        with pytest.raises(DataFileError, match="has no sheet nope"):
            load("a.xlsx", sheet="nope")
        make_sheet(path, [["Report of May"], [None], ["txt", "n"], ["a", 1]])
        assert "skip=2" in load("a.xlsx")[2][0]
        assert load("a.xlsx", skip=2)[1] == [("a", 1.0)]

    def test_cells_are_what_they_are(self, workspace: Workspace, load: Callable) -> None:
        import datetime as dt

        make_sheet(
            workspace.data / "a.xlsx",
            [
                ["d", "mix", "txt"],
                [dt.date(2024, 1, 2), 0.1234567890123, "1.10"],
                [dt.date(2024, 1, 3), False, "1.1"],
            ],
        )
        types, rows, _ = load("a.xlsx")
        assert types == {"d": "DATE", "mix": "VARCHAR", "txt": "VARCHAR"}
        assert rows == [
            (dt.date(2024, 1, 2), "0.1234567890123", "1.10"),
            (dt.date(2024, 1, 3), "false", "1.1"),
        ]

    def test_a_far_cell_is_refused_before_it_is_read(self, workspace: Workspace, load: Callable) -> None:
        with xlsxwriter.Workbook(workspace.data / "a.xlsx") as book:
            sheet = book.add_worksheet()
            sheet.write(0, 0, "txt")
            sheet.write(1_048_575, 16_383, "far")
        with pytest.raises(DataFileError, match="reaches to row 1,048,576, column 16,384"):
            load("a.xlsx")


def test_parquet_files_that_lack_columns_are_said(workspace: Workspace, load: Callable) -> None:
    folder = workspace.data / "many"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), folder / "1.parquet")
    pq.write_table(pa.table({"a": [2]}), folder / "2.parquet")
    _, rows, notes = load("many")
    assert rows == [(1, "x"), (2, None)]
    assert notes == ["'2.parquet' has no column b: NULL in its rows."]


class TestAppends:
    @pytest.mark.parametrize(
        ("first", "second", "type_", "stored"),
        [
            ("1\n2", "2.5", "DOUBLE", ["1.0", "2.0", "2.5"]),
            ("1220", "01220", "VARCHAR", ["1220", "01220"]),
            ("1.50\n2.25", "x", "VARCHAR", ["1.50", "2.25", "x"]),
            (
                "2024-01-02",
                "2024-01-03 14:15:16",
                "TIMESTAMP",
                ["2024-01-02 00:00:00", "2024-01-03 14:15:16"],
            ),
            ("true", "1", "VARCHAR", ["true", "1"]),
            ("9007199254740993", "0.5", "VARCHAR", ["9007199254740993", "0.5"]),
        ],
    )
    def test_the_type_is_widened(
        self, workspace: Workspace, put: Callable, first: str, second: str, type_: str, stored: list[str]
    ) -> None:
        put("a.csv", "txt,v\n" + "".join(f"t,{value}\n" for value in first.split("\n")))
        put("b.csv", f"txt,v\nt,{second}\n")
        with Session(workspace) as session:
            session.execute("COPY t FROM 'a.csv'")
            session.execute("COPY t OPTIONS (if_exists='append') FROM 'b.csv'")
            found = (
                session.execute("SELECT typeof(v) AS t, CAST(v AS VARCHAR) AS v FROM t").arrow().to_pylist()
            )
        assert {row["t"] for row in found} == {type_}
        assert [row["v"] for row in found] == stored

    def test_a_column_that_is_lacking_is_said(self, workspace: Workspace, put: Callable) -> None:
        put("a.csv", "txt,v\nt,1\n")
        put("b.csv", "txt\nu\n")
        with Session(workspace) as session:
            session.execute("COPY t FROM 'a.csv'")
            result = session.execute("COPY t OPTIONS (if_exists='append') FROM 'b.csv'")
        assert result.warnings == ["The appended file has no column v: NULL in its 1 row."]

    @pytest.mark.parametrize(
        ("rounds", "type_", "values"),
        [
            (("1", "1.5", "x", "2.50"), "VARCHAR", ["1", "1.5", "x", "2.50"]),
            (
                ("2024-01-01", "2024-01-01 10:00:00", "soon"),
                "VARCHAR",
                ["2024-01-01", "2024-01-01 10:00:00", "soon"],
            ),
            (("1", "1.5", "9007199254740993"), "VARCHAR", ["1", "1.5", "9007199254740993"]),
            (("1", "2.5", "3"), "DOUBLE", ["1.0", "2.5", "3.0"]),
        ],
    )
    def test_it_is_widened_in_each_round(
        self, workspace: Workspace, put: Callable, rounds: tuple[str, ...], type_: str, values: list[str]
    ) -> None:
        with Session(workspace) as session:
            for number, text in enumerate(rounds):
                put(f"{number}.csv", f"a\n{text}\n")
                session.execute(f"COPY t OPTIONS (if_exists='append') FROM '{number}.csv'")
            rows = (
                session.execute("SELECT typeof(a) AS type, CAST(a AS VARCHAR) AS a FROM t")
                .arrow()
                .to_pylist()
            )
            assert [row["a"] for row in rows] == values
            assert {row["type"] for row in rows} == {type_}

    def test_numbers_of_a_sheet_keep_their_spelling_beside_texts(
        self, workspace: Workspace, put: Callable
    ) -> None:
        make_sheet(workspace.data / "t.xlsx", [["a"], [1], [2.5]])
        put("t.csv", "a\nx\n")
        with Session(workspace) as session:
            session.execute("COPY t FROM 't.xlsx'")
            session.execute("COPY t OPTIONS (if_exists='append') FROM 't.csv'")
            assert session.execute("FROM t").arrow()["a"].to_pylist() == ["1", "2.5", "x"]


class TestLinesThatAreNoRows:
    @pytest.mark.parametrize(
        ("content", "options"),
        [
            ('"Title\nmore"\na,b\n1,x\n2,y\n3,z\n', {"skip": 2}),
            ('"Title\nmore\na,b\n1,x\n2,y\n3,z\n', {"skip": 2}),
            (b'\xef\xbb\xbf"sep=;"\r\na;b\r\n1;x\r\n2;y\r\n3;z\r\n', {}),
            (b'\xef\xbb\xbf"sep=;"\na;b\n1;x\n2;y\n3;z\n', {}),
        ],
    )
    def test_quotes_above_the_header_take_no_row_along(
        self, put: Callable, load: Callable, content: str | bytes, options: dict[str, Any]
    ) -> None:
        put("t.csv", content)
        types, rows, _ = load("t.csv", **options)
        assert types == {"a": "BIGINT", "b": "VARCHAR"}
        assert rows == [(1, "x"), (2, "y"), (3, "z")]

    @pytest.mark.parametrize("mark", ["#", "//"])
    def test_a_comment_begins_its_line(self, put: Callable, load: Callable, mark: str) -> None:
        put(
            "t.csv",
            f'id,text\n1,great {mark}movie\n{mark} a note, with a comma\n2,{mark}1 film\n3,"a\n{mark}b"\n',
        )
        _, rows, _ = load("t.csv", comment=mark)
        assert rows == [(1, f"great {mark}movie"), (2, f"{mark}1 film"), (3, f"a\n{mark}b")]

    def test_comments_of_one_column_are_no_rows(self, put: Callable, load: Callable) -> None:
        put("t.csv", "text\na\n#no\nb\n")
        assert load("t.csv", comment="#")[1] == [("a",), ("b",)]

    def test_errors_tell_the_line_of_the_file(self, put: Callable, load: Callable) -> None:
        put("t.csv", '"Title"\n#note\na,b\n#note\n1,x\n2.5,y\n')
        with pytest.raises(DataFileError, match="line 6"):
            load("t.csv", skip=2, comment="#", columns={"a": "INTEGER"})


class TestNumbersOfJson:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("12345678901234567890.5", "12345678901234567890.5"),
            ("0.12345678901234567890", "0.12345678901234567890"),
            ("1e400", "1e400"),
            ('{"id": 12345678901234567890123}', '{"id": 12345678901234567890123}'),
            ("[123456789012345678901234567890, 1]", "[123456789012345678901234567890, 1]"),
            ('{"x": 18446744073709551615, "y": 0.5}', '{"x": 18446744073709551615, "y": 0.5}'),
        ],
    )
    @pytest.mark.parametrize("lines", [True, False])
    def test_what_no_type_holds_is_text_as_it_is_written(
        self, put: Callable, load: Callable, value: str, text: str, lines: bool
    ) -> None:
        put("t.jsonl" if lines else "t.json", f'{{"a": {value}}}\n' if lines else f'[{{"a": {value}}}]')
        types, rows, notes = load("t.jsonl" if lines else "t.json")
        assert types == {"a": "VARCHAR"}
        assert rows == [(text,)]
        assert any("Column a is text" in note for note in notes)

    def test_what_a_type_holds_has_it(self, put: Callable, load: Callable) -> None:
        put("t.json", '[{"a": {"id": 1234567890123456789, "s": 0.30000000000000004}, "b": 1e20, "c": 0.1}]')
        types, rows, notes = load("t.json")
        assert types == {"a": "STRUCT(id BIGINT, s DOUBLE)", "b": "DOUBLE", "c": "DOUBLE"}
        assert rows == [({"id": 1234567890123456789, "s": 0.30000000000000004}, 1e20, 0.1)]
        assert notes == []

    def test_all_text_is_as_written(self, put: Callable, load: Callable) -> None:
        put("t.json", '[{"a": 1.50, "b": {"k": 1e3}, "c": {}, "d": "x", "e": true, "f": null}]')
        assert load("t.json", all_text=True)[1] == [("1.50", '{"k": 1e3}', "{}", "x", "true", None)]

    def test_several_kinds_keep_their_spelling(self, put: Callable, load: Callable) -> None:
        put("t.json", '[{"a": 1.50}, {"a": "x"}, {"a": [1.0]}]')
        assert load("t.json")[1] == [("1.50",), ("x",), ("[1.0]",)]


class TestGivenTypes:
    @pytest.mark.parametrize(
        ("type_", "value"),
        [
            ("INTEGER[]", "[1.5, 2]"),
            ("STRUCT(x INTEGER)", "{'x': 1.5}"),
            ("DOUBLE", "9007199254740993"),
            ("DOUBLE", "1e400"),
            ("FLOAT", "16777217"),
            ("TIME", "10:00:00.123456789"),
            ("TIMESTAMP", "2024-01-01 00:00:00+09"),
            ("ENUM('x', 'y')", "z"),
        ],
    )
    def test_what_they_would_change_is_refused(
        self, put: Callable, load: Callable, type_: str, value: str
    ) -> None:
        put("t.csv", f'a,b\n"{value}",1\n')
        with pytest.raises(DataFileError, match=r"line 2: .* in column a is no "):
            load("t.csv", columns={"a": type_})

    @pytest.mark.parametrize(
        ("type_", "value", "stored"),
        [
            ("DOUBLE[]", "[1, 2.50]", "[1.0, 2.5]"),
            ("DOUBLE", "1.50", "1.5"),
            ("DOUBLE", "100000000000000000000", "1e+20"),
            ("TIMESTAMP", "2024-01-01 10:00", "2024-01-01 10:00:00"),
            ("TIME", "10:00:00.5", "10:00:00.5"),
            ("ENUM('x', 'y')", "x", "x"),
        ],
    )
    def test_what_they_hold_is_taken(
        self, put: Callable, load: Callable, type_: str, value: str, stored: str
    ) -> None:
        put("t.csv", f'a,b\n"{value}",1\n')
        types, rows, _ = load("t.csv", columns={"a": type_})
        assert duckdb.execute(
            f"SELECT CAST(CAST(? AS {types['a']}) AS VARCHAR)", [str(rows[0][0])]
        ).fetchall() == [(stored,)]

    def test_parquet_too(self, workspace: Workspace, load: Callable) -> None:
        pq.write_table(pa.table({"a": [1.5, 2.0], "b": [3.0, 4.0]}), workspace.data / "t.parquet")
        types, rows, _ = load("t.parquet", columns={"b": "INTEGER"})
        assert types == {"a": "DOUBLE", "b": "INTEGER"}
        assert rows == [(1.5, 3), (2.0, 4)]
        assert load("t.parquet", all_text=True)[1] == [("1.5", "3.0"), ("2.0", "4.0")]
        with pytest.raises(DataFileError, match=r"'1\.5' in column a is no INTEGER"):
            load("t.parquet", columns={"a": "INTEGER"})

    @pytest.mark.parametrize("name", ["t.json", "t.parquet", "t.xlsx", "t.csv"])
    def test_a_column_that_is_not_there_is_told_for_every_format(
        self, workspace: Workspace, put: Callable, load: Callable, name: str
    ) -> None:
        put("t.json", '[{"a": 1}]')
        put("t.csv", "a\n1\n")
        pq.write_table(pa.table({"a": [1]}), workspace.data / "t.parquet")
        make_sheet(workspace.data / "t.xlsx", [["a"], [1]])
        with pytest.raises(DataFileError, match="columns gives a type to z"):
            load(name, columns={"z": "INTEGER"})


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (gzip.compress(b"a,b\n1,2\n", mtime=0), "compressed with gzip"),
            (b"PK\x03\x04....", "a zip archive or a workbook"),
            (b"PAR1....", "a Parquet file"),
            ("a,b\n1,2\n".encode("utf-16-le"), "NUL characters"),
            (b"caf\xe9,b\n", "not UTF-8: line 1"),
        ],
    )
    def test_what_is_no_text_is_named(self, put: Callable, load: Callable, content: bytes, said: str) -> None:
        put("t.csv", content)
        with pytest.raises(DataFileError, match=said):
            load("t.csv")

    @pytest.mark.parametrize(
        ("text", "encoding"),
        [
            ("글,라벨\n좋아요,1\n나빠요,0\n", "cp949"),
            ("文,ラベル\nよい,1\n悪い,0\n", "cp932"),
            ("評論,標籤\n好看,1\n難看,0\n", "big5"),
        ],
    )
    def test_a_short_file_of_east_asia(self, put: Callable, load: Callable, text: str, encoding: str) -> None:
        put("t.csv", text.encode(encoding))
        with pytest.raises(DataFileError) as caught:
            load("t.csv")
        assert f"encoding='{encoding}'" in str(caught.value.hint)
        assert repr(text.split()[0]) in str(caught.value.hint)

    def test_names_that_change_are_said(self, put: Callable, load: Callable) -> None:
        put("t.csv", "a,, c\n1,2,3\n")
        types, _, notes = load("t.csv")
        assert list(types) == ["a", "column1", "c"]
        assert len(notes) == 2

    def test_a_value_among_numbers_is_named(self, put: Callable, load: Callable) -> None:
        put("t.csv", "id\n" + "\n".join(map(str, range(LATE))) + "\nx\n")
        assert any("because 'x' is not a number" in note for note in load("t.csv")[2])


class TestCellsWithoutTheirOwnWords:
    def test_days_and_moments_are_moments(self, workspace: Workspace, load: Callable) -> None:
        import datetime as dt

        make_sheet(
            workspace.data / "t.xlsx", [["d"], [dt.datetime(2024, 1, 1)], [dt.datetime(2024, 1, 1, 10, 30)]]
        )
        types, rows, _ = load("t.xlsx")
        assert types == {"d": "TIMESTAMP"}
        assert rows == [(dt.datetime(2024, 1, 1),), (dt.datetime(2024, 1, 1, 10, 30),)]

    def test_formulas_that_nobody_computed_are_counted(self, workspace: Workspace, load: Callable) -> None:
        path = workspace.data / "t.xlsx"
        with xlsxwriter.Workbook(path) as book:
            sheet = book.add_worksheet()
            sheet.write_row(0, 0, ["a", "b"])
            sheet.write_row(1, 0, [1])
            sheet.write_formula(1, 1, "=A2+1", None, "")
            sheet.write_formula(2, 1, "=A2+1", None, 2)
        _, rows, notes = load("t.xlsx")
        assert [row[1] for row in rows] == [None, 2]
        assert any("1 cell (B2) has a formula" in note for note in notes)

    def test_long_whole_numbers_keep_their_digits_as_text(self, workspace: Workspace, load: Callable) -> None:
        make_sheet(workspace.data / "t.xlsx", [["n"], [1234567890123456], ["x"]])
        assert load("t.xlsx")[1] == [("1234567890123456",), ("x",)]
