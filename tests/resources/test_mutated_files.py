"""Files changed at random: each is read, or gets a sentence; nothing else comes out, and no process ends.

Some hundred by default; ``THANO_MUTATED_FILES=2000 pytest tests/resources/test_mutated_files.py`` takes that
many.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from thano_assets.errors import ThanoError
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.reading.source import ReadAgain, raw_source

COUNT = int(os.environ.get("THANO_MUTATED_FILES", "300"))
ROWS = [
    {"id": number, "review": f'good, "film" {number}\nof 영화', "score": number / 4} for number in range(40)
]
PIECES = [
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b"\t", b",", b";", b"\r", b"\n", b"\\", b"#"),
    *(b"{", b"}", b"[", b"]", b":", b"9" * 400, b"1e999", b"NaN", b"-", b"<", b"&#0;", b"\x8e\xb0"),
    *(b"[" * 300, b'{"a":' * 200, b"," * 300, b"sep=;\n", b"XFD1048576", b'r="1048576"', b"&x;"),
]


def csv(delimiter: str) -> bytes:
    quoted = (
        [str(row["id"]), '"' + str(row["review"]).replace('"', '""') + '"', str(row["score"])] for row in ROWS
    )
    return "\n".join([delimiter.join(ROWS[0]), *map(delimiter.join, quoted)]).encode()


def workbook() -> bytes:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate([list(ROWS[0]), *(list(row.values()) for row in ROWS)]):
            sheet.write_row(number, 0, row)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def originals() -> dict[str, bytes]:
    return {
        "t.csv": csv(","),
        "t.tsv": csv("\t"),
        "t.txt": "\n".join(str(row["review"]) for row in ROWS).encode(),
        "t.json": json.dumps(ROWS).encode(),
        "t.jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
        "t.csv.gz": gzip.compress(csv(",")),
        "t.xlsx": workbook(),
        "t.parquet": parquet(),
    }


def mutated(chance: random.Random, data: bytes) -> bytes:
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        end = min(len(data), place + chance.randint(0, 40))
        match chance.randrange(6):
            case 0:
                data = data[:place] + data[end:]
            case 1:
                data = data[:place] + chance.choice(PIECES) + data[place:]
            case 2:
                data = data[:place] + chance.randbytes(end - place) + data[end:]
            case 3:
                data = data[:place]
            case 4:
                data = data[:place] + data[place:end] * chance.randint(2, 60) + data[end:]
            case _:
                data = data[:place] + chance.choice(PIECES) + data[end:]
    return data


def inside(chance: random.Random, data: bytes) -> bytes:
    """A workbook with one of its parts changed, and the archive whole."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        names = old.namelist()
        chosen = chance.choice([name for name in names if "sheet" in name or "shared" in name] + names)
        for name in names:
            part = old.read(name)
            new.writestr(name, mutated(chance, part) if name == chosen else part)
    return buffer.getvalue()


@pytest.mark.parametrize("part", range(4))
def test_a_changed_file_is_read_or_gets_a_sentence(part: int, tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "workspace")
    chance, files = random.Random(part), originals()
    read = refused = 0
    with duckdb.connect() as connection:
        for number in range(COUNT // 4):
            name = list(files)[number % len(files)]
            change = inside if name.endswith("xlsx") and chance.random() < 0.6 else mutated
            data = change(chance, files[name])
            (workspace.data / name).write_bytes(data)
            try:
                source = raw_source(workspace, path=name)
                while True:
                    try:
                        with source.relation(connection) as relation:
                            connection.execute(f"CREATE OR REPLACE TEMP TABLE t AS {relation.sql}")
                        break
                    except ReadAgain as again:
                        source = again.source
                read += 1
            except ThanoError as error:
                if not error.message or "\n" in error.message or len(error.message) > 2000:
                    pytest.fail(f"{part}.{number} {name}: {error.message!r}")
                refused += 1
            except BaseException:
                (Path(os.environ.get("THANO_KEEP", str(tmp_path))) / f"broken-{name}").write_bytes(data)
                raise
    assert read > COUNT // 60
    assert refused > COUNT // 60
