from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thano_assets.errors import DataFileError, PathRefused, ThanoError
from thano_assets.resources.files import resolve
from thano_assets.resources.reading.options import ReadOptions
from thano_assets.resources.reading.source import ReadAgain, raw_source
from thano_assets.resources.warehouse import Warehouse, describe
from thano_assets.resources.workspace import Workspace
from thano_assets.sql import Options

CSV = 'review,label\nGreat!,1\n"bad, bad",0\n'


@pytest.fixture
def put(workspace: Workspace) -> Callable[[str, str | bytes], Path]:
    """Writes a file into the data folder."""

    def write(name: str, content: str | bytes) -> Path:
        path = workspace.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def copy(workspace: Workspace) -> Callable[..., tuple[list[tuple[str, str]], list[tuple[Any, ...]]]]:
    """What a COPY does with files: the columns and rows of the table."""
    warehouse = Warehouse.of(workspace)

    def load(
        path: str | None = None, rows_json: str | None = None, **options: Any
    ) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
        options = dict(Options.of("COPY", **options))
        source = raw_source(workspace, path=path, rows_json=rows_json, options=ReadOptions.of(options))
        while True:
            try:
                with warehouse.write() as connection:
                    with source.relation(connection) as relation:
                        connection.execute(f"CREATE OR REPLACE TABLE t AS {relation.sql}")
                    columns = [(column.name, column.type) for column in describe(connection, "t")]
                    return columns, connection.execute("FROM t").fetchall()
            except ReadAgain as again:
                source = again.source

    return load


# ---------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("A.CSV", CSV),
        ("bom.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("crlf.csv", CSV.replace("\n", "\r\n")),
        ("last.csv", CSV.rstrip("\n")),
        ("blank.csv", "\n\n" + CSV + "\n\n"),
        ("semicolon.csv", 'review;label\nGreat!;1\n"bad, bad";0\n'),
        ("a.tsv", "review\tlabel\nGreat!\t1\nbad, bad\t0\n"),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("a.csv.zst", pa.compress(CSV.encode(), codec="zstd", asbytes=True)),
        ("a.json", '[{"review": "Great!", "label": 1}, {"review": "bad, bad", "label": 0}]'),
        ("a.jsonl", '{"review": "Great!", "label": 1}\n{"review": "bad, bad", "label": 0}\n'),
        ("a.ndjson", '{"review": "Great!", "label": 1}\n{"review": "bad, bad", "label": 0}\n'),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"review":"Great!","label":1}\n{"review":"bad, bad","label":0}\n', mtime=0),
        ),
    ],
)
def test_text_formats(put: Callable, copy: Callable, name: str, content: str | bytes) -> None:
    put(name, content)
    columns, rows = copy(name)
    assert columns == [("review", "VARCHAR"), ("label", "BIGINT")]
    assert rows == [("Great!", 1), ("bad, bad", 0)]


def test_parquet(workspace: Workspace, copy: Callable) -> None:
    pq.write_table(pa.table({"a": [1, 2], "l": [[1], [2, 3]]}), workspace.data / "a.parquet")
    assert copy("a.parquet") == ([("a", "BIGINT"), ("l", "BIGINT[]")], [(1, [1]), (2, [2, 3])])


def make_xlsx(path: Path, rows: list[list[str | int | float | bool]]) -> None:
    """The smallest workbook that is one: values inline, no styles."""

    def cell(value: str | int | float | bool) -> str:
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    lines = "".join("<row>" + "".join(map(cell, row)) + "</row>" for row in rows)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType='
        '"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>'
        '<sheet name="Sheet1" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


def test_excel(workspace: Workspace, copy: Callable) -> None:
    make_xlsx(
        workspace.data / "a.xlsx", [["review", "score", "good"], ["Great!", 1.5, True], ["bad", 2, False]]
    )
    columns, rows = copy("a.xlsx")
    assert columns == [("review", "VARCHAR"), ("score", "DOUBLE"), ("good", "BOOLEAN")]
    assert rows == [("Great!", 1.5, True), ("bad", 2.0, False)]
    make_xlsx(workspace.data / "b.xlsx", [["review", "score", "good"], ["more", 3, True]])
    assert len(copy("*.xlsx")[1]) == 3


def test_excel_that_is_none(put: Callable, workspace: Workspace, copy: Callable) -> None:
    put("a.xlsx", "review,label\n")
    with pytest.raises(DataFileError, match=r"'a.xlsx' cannot be read as an Excel workbook"):
        copy("a.xlsx")
    make_xlsx(workspace.data / "empty.xlsx", [])
    with pytest.raises(DataFileError, match=r"empty"):
        copy("empty.xlsx")


def test_folder_and_glob(put: Callable, copy: Callable, workspace: Workspace) -> None:
    put("many/b.csv", "label,review\n2,b\n")
    put("many/a.csv", "review,label\na,1\n")
    put("many/deep/c.csv", "review,label\nc,3\n")
    put("many/notes.md", "not read")
    put("many/.hidden.csv", "x\n")
    expected = [("a", 1), ("b", 2), ("c", 3)]
    assert sorted(copy("many")[1]) == expected
    assert sorted(copy("many/")[1]) == expected
    assert sorted(copy("many/**/*.csv")[1]) == expected
    assert sorted(copy("many/[ab].csv")[1]) == expected[:2]
    assert [path.name for path in resolve(workspace, "many/*.csv")] == ["a.csv", "b.csv"]


def test_a_file_whose_name_looks_like_a_pattern(put: Callable, copy: Callable) -> None:
    put("a[1].csv", CSV)
    assert len(copy("a[1].csv")[1]) == 2


def test_inline_rows(copy: Callable, workspace: Workspace) -> None:
    columns, rows = copy(rows_json='[{"review": "it\'s", "day": "2026-01-02"}, {"review": "b", "n": 2.5}]')
    assert columns == [("review", "VARCHAR"), ("day", "VARCHAR"), ("n", "DOUBLE")]
    assert len(rows) == 2
    source = raw_source(workspace, rows_json='[{"a": 1}]')
    assert (source.files, source.format, source.bytes) == ([], "inline", 10)


def test_types_of_labels(put: Callable, copy: Callable) -> None:
    put("t.csv", "i,b,d,s,f,day,time,empty\n1,true,1.5,x,2e3,2026-01-02,2026-01-02 03:04:05,\n")
    assert [kind for _, kind in copy("t.csv")[0]] == [
        "BIGINT",
        "BOOLEAN",
        "DOUBLE",
        "VARCHAR",
        "VARCHAR",
        "DATE",
        "TIMESTAMP",
        "VARCHAR",
    ]


def test_quotes_and_line_breaks_far_down(put: Callable, copy: Callable) -> None:
    """What the sampled first rows do not show: guessing would take quotes for letters."""
    put("t.csv", "review,label\n" + "plain,1\n" * 30_000 + '"say ""hi"",\nthen go",2\n')
    assert copy("t.csv")[1][-1] == ('say "hi",\nthen go', 2)


def test_rows_that_look_like_comments_are_rows(put: Callable, copy: Callable) -> None:
    put("t.csv", "review,label\n" + "plain,1\n" * 3 + "# not, \n#1,2\n")
    assert copy("t.csv")[1][-2:] == [("# not", " "), ("#1", "2")]


def test_header_only_is_a_table_without_rows(put: Callable, copy: Callable) -> None:
    put("t.csv", "review,label\n")
    assert copy("t.csv") == ([("review", "VARCHAR"), ("label", "VARCHAR")], [])


def test_one_column_of_text(put: Callable, copy: Callable) -> None:
    put("t.csv", 'review\nhello there; friend\n"a, b"\n')
    assert copy("t.csv")[1] == [("hello there; friend",), ("a, b",)]


def test_types_that_change_far_down(put: Callable, copy: Callable) -> None:
    put("t.csv", "review,label\n" + '"two\nlines",1\n' * 30_000 + "x,many\n")
    columns, rows = copy("t.csv")
    assert columns == [("review", "VARCHAR"), ("label", "VARCHAR")]
    assert rows[-1] == ("x", "many")


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("more.csv", "a,b\n1,2\n3,4,5\n", "'more.csv', line 3 has 3 values where the header has 2 columns."),
        ("less.csv", "a,b\n1,2\n3\n", "'less.csv', line 3 has 1 value where the header has 2 columns."),
        ("one.csv", "review\nhello, you\n", "'one.csv', line 2 has 2 values where the header has 1 column."),
        (
            "late.csv",
            "a,b\n" + '"x\ny",2\n' * 30_000 + "3,4,5\n",
            "'late.csv', line 60,002 has 3 values where the header has 2 columns.",
        ),
        ("open.csv", 'a,b\n1,2\n"open,3\n4,5\n', "'open.csv' has a quote that does not end"),
        (
            "korean.csv",
            "review,label\n좋아요,1\n".encode("cp949"),
            "'korean.csv' is not UTF-8: line 2 has the byte 0xc1.",
        ),
        (
            "latin.csv",
            ("a,b\n" + "x,1\n" * 30_000 + "café,1\n").encode("latin-1"),
            "'latin.csv' is not UTF-8: line 30,002 has the byte 0xe9.",
        ),
        ("wide.csv", "a,b\nx,1\n".encode("utf-16"), "'wide.csv' is not UTF-8: it is UTF-16."),
        ("empty.csv", "", "'empty.csv' is empty."),
        ("empty.parquet", "", "'empty.parquet' is empty."),
        ("no.csv.gz", "a,b\n", "'no.csv.gz' cannot be read: Not a gzipped file"),
        (
            "cut.csv.gz",
            gzip.compress(CSV.encode() * 9999, mtime=0)[:-20],
            "'cut.csv.gz' cannot be read: its compressed content is damaged",
        ),
        ("no.parquet", "a,b\n1,2\n" * 9, "'no.parquet' cannot be read as Parquet: "),
        ("no.json", '{"a": 1', "'no.json' cannot be read as JSON: Malformed JSON, at byte 8"),
        ("no.jsonl", '{"a": 1}\n{"a": \n', "'no.jsonl' cannot be read as JSON lines: "),
        (
            "wide_line.csv",
            "a,b\n1," + "x" * 3_000_000 + "\n",
            "'wide_line.csv' has a row that is longer than what is read at once.",
        ),
    ],
)
def test_broken_files(put: Callable, copy: Callable, name: str, content: str | bytes, says: str) -> None:
    put(name, content)
    with pytest.raises(DataFileError) as caught:
        copy(name)
    assert says in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_the_broken_one_of_many_is_named(put: Callable, copy: Callable) -> None:
    for name in "abc":
        put(f"many/{name}.csv", "a,b\n1,2\n")
    put("many/bb.csv", "a,b\n1,2\n3,4,5\n")
    with pytest.raises(DataFileError, match=r"'bb.csv', line 3 has 3 values"):
        copy("many")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m.pkl", "'m.pkl' is refused: reading a .pkl file can run code that is hidden in it."),
        ("m.pickle", "is refused"),
        ("m.pth", "is refused"),
        ("m.png", "'m.png' is an image; this engine reads tables."),
        ("m.wav", "'m.wav' is sound"),
        ("m.mp4", "'m.mp4' is a video"),
        ("m.docx", "'m.docx' has the ending '.docx', which tells no format that is read."),
        ("m", "'m' has a name without an ending"),
        ("m.parquet.gz", "has the ending '.gz'"),
    ],
)
def test_formats_that_are_not_read(put: Callable, copy: Callable, name: str, says: str) -> None:
    put(name, pickle.dumps([1]))
    with pytest.raises(DataFileError) as caught:
        copy(name)
    assert says in caught.value.message
    assert caught.value.hint


def test_folder_without_and_with_too_many_formats(
    put: Callable, copy: Callable, workspace: Workspace
) -> None:
    put("pictures/a.png", b"x")
    put("mixed/a.csv", CSV)
    put("mixed/b.jsonl", "{}")
    (workspace.data / "none").mkdir()
    for folder in ("pictures", "none"):
        with pytest.raises(DataFileError, match=f"The folder '{folder}' has no file that can be read"):
            copy(folder)
    with pytest.raises(
        DataFileError, match=r"several formats: csv \('a.csv'\) and jsonl \('b.jsonl'\)"
    ) as caught:
        copy("mixed")
    assert "'mixed/*.csv'" in str(caught.value.hint)


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", '[{"a": 1', "[]", "[{}]", ""])
def test_inline_rows_that_are_none(copy: Callable, text: str) -> None:
    with pytest.raises(DataFileError, match="The inline JSON") as caught:
        copy(rows_json=text)
    assert "JSON list of objects" in str(caught.value.hint)


def test_a_missing_file_names_the_nearest(put: Callable, copy: Callable) -> None:
    put("shop/reviews_2026.csv", CSV)
    with pytest.raises(DataFileError, match=r"There is no file or folder 'shop/review_2026.csv'") as caught:
        copy("shop/review_2026.csv")
    assert "'shop/reviews_2026.csv'" in str(caught.value.hint)
    with pytest.raises(DataFileError) as caught:
        copy("reviews_2026.csv")
    assert "'shop/reviews_2026.csv'" in str(caught.value.hint)
    with pytest.raises(DataFileError, match=r"No file matches '\*.parquet'"):
        copy("*.parquet")
    with pytest.raises(DataFileError):
        copy("x" * 5000)


# ------------------------------------------------------------------------------------- inside the fence


def test_paths_may_start_at_the_workspace_or_be_absolute(put: Callable, copy: Callable) -> None:
    path = put("a.csv", CSV)
    for spelling in ("a.csv", "./a.csv", "data/a.csv", str(path), "x/../a.csv"):
        if spelling.startswith("x/"):
            put("x/other.csv", CSV)
        assert len(copy(spelling)[1]) == 2


@pytest.mark.parametrize(
    "path",
    [
        "../thano.toml",
        "../../outside.csv",
        "/etc/passwd",
        "/no/such/file.csv",
        "thano.toml",
        "../data/../../x.csv",
    ],
)
def test_outside_is_refused_whether_it_exists_or_not(workspace: Workspace, copy: Callable, path: str) -> None:
    (workspace.root.parent / "outside.csv").write_text(CSV, encoding="utf-8")
    with pytest.raises(PathRefused) as caught:
        copy(path)
    assert caught.value.message == f"'{path}' is outside the folders that COPY may read."
    assert "allowed under [files]" in str(caught.value.hint)


@pytest.mark.parametrize("path", ["http://example.com/a.csv", "s3://bucket/a.parquet", "file:///etc/passwd"])
def test_addresses_are_refused(copy: Callable, path: str) -> None:
    with pytest.raises(PathRefused, match="is an address"):
        copy(path)


def test_links_count_as_what_they_point_to(workspace: Workspace, put: Callable, copy: Callable) -> None:
    outside = workspace.root.parent / "outside"
    outside.mkdir()
    (outside / "a.csv").write_text(CSV, encoding="utf-8")
    (workspace.data / "link.csv").symlink_to(outside / "a.csv")
    (workspace.data / "folder").symlink_to(outside)
    put("mixed/a.csv", CSV)
    (workspace.data / "mixed" / "b.csv").symlink_to(outside / "a.csv")
    for path in ("link.csv", "folder", "folder/a.csv", "mixed", "*.csv", "mixed/*.csv"):
        with pytest.raises(PathRefused):
            copy(path)
    (workspace.data / "inside.csv").symlink_to(workspace.data / "mixed" / "a.csv")
    assert len(copy("inside.csv")[1]) == 2
    (workspace.data / "loop.csv").symlink_to(workspace.data / "loop.csv")
    with pytest.raises(ThanoError):
        copy("loop.csv")


def test_the_setting_widens_the_fence(workspace: Workspace) -> None:
    outside = workspace.root.parent / "more"
    outside.mkdir()
    (outside / "a.csv").write_text(CSV, encoding="utf-8")
    workspace.settings_path.write_text("[files]\nallowed = ['../more']\n", encoding="utf-8")
    wider = Workspace(workspace.root)
    for path in (str(outside / "a.csv"), "a.csv"):
        source = raw_source(wider, path=path)
        with Warehouse.of(wider).read() as connection, source.relation(connection) as relation:
            assert len(connection.execute(relation.sql).fetchall()) == 2


def test_quotes_in_a_name_stay_in_the_name(put: Callable, copy: Callable) -> None:
    put("it's.csv", CSV)
    assert len(copy("it's.csv")[1]) == 2


# ---------------------------------------------------------------------------------- the tutorial's files


@pytest.mark.parametrize("folder", ["tutorial_data", "thanosql-dataset"])
def test_the_tutorials_files_come_on_first_use(workspace: Workspace, copy: Callable, folder: str) -> None:
    path = f"{folder}/movie_review_data/movie_review_test.csv"
    columns, rows = copy(path)
    assert columns == [("review", "VARCHAR"), ("sentiment", "VARCHAR")]
    assert len(rows) == 1000
    assert resolve(workspace, path) == [
        workspace.data / "thanosql-dataset/movie_review_data/movie_review_test.csv"
    ]


def test_a_file_of_ones_own_under_the_tutorials_name_goes_first(put: Callable, copy: Callable) -> None:
    put("tutorial_data/movie_review_data/movie_review_test.csv", CSV)
    assert len(copy("tutorial_data/movie_review_data/movie_review_test.csv")[1]) == 2


# ------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_is_of_content_only(workspace: Workspace, put: Callable) -> None:
    def fingerprint(path: str) -> str:
        return raw_source(workspace, path=path).fingerprint()

    first = put("one/a.csv", CSV)
    put("one/b.csv", CSV + "more,2\n")
    put("two/z.csv", CSV)
    put("two/y.csv", CSV + "more,2\n")
    before = fingerprint("one")
    assert before == fingerprint("two") == fingerprint("one/*.csv")
    os.utime(first, (1, 1))
    assert fingerprint("one") == before
    first.write_text(CSV.replace("1", "2"), encoding="utf-8")
    assert fingerprint("one") != before
    put("same.tsv", CSV)
    put("same.csv", CSV)
    assert fingerprint("same.csv") != fingerprint("same.tsv")


def test_fingerprint_of_inline_rows_ignores_layout(workspace: Workspace) -> None:
    texts = ['[{"a": 1, "b": 2}]', '[ {"b":2,\n"a":1} ]', '[{"a": 1, "b": 3}]']
    prints = [raw_source(workspace, rows_json=text).fingerprint() for text in texts]
    assert prints[0] == prints[1] != prints[2]


def test_large_files_are_not_held_in_memory(workspace: Workspace) -> None:
    """The content hash of 200 MB takes no more memory than that of 1 MB."""
    import tracemalloc

    with (workspace.data / "big.csv").open("wb") as file:
        file.write(b"a\n")
        file.truncate(200_000_000)
    source = raw_source(workspace, path="big.csv")
    tracemalloc.start()
    source.fingerprint()
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
