"""What is wrong with a CSV file: read again in Python once DuckDB has complained, to name the line.

DuckDB counts records where texts span lines, and of some faults it only says that it could not detect
a dialect. Compressed files are read through.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from ..errors import DataFileError

_CHUNK = 1 << 20


@contextmanager
def bytes_of(file: Path) -> Iterator[IO[bytes]]:
    """The file's content, decompressed."""
    if file.suffix.lower() == ".zst":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(str(file)), "zstd") as stream:
            yield cast(IO[bytes], io.BufferedReader(stream, _CHUNK))
    elif file.suffix.lower() == ".gz":
        with gzip.open(file, "rb") as unpacked:
            yield cast(IO[bytes], unpacked)
    else:
        with file.open("rb") as content:
            yield content


def header_of(file: Path) -> tuple[int, str]:
    """Blank lines before a CSV file's header, and the header, whose quoted names may hold line breaks."""
    try:
        with bytes_of(file) as content:
            head = content.read(_CHUNK).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError):
        return 0, ""  # DuckDB will say what is wrong with it
    found = re.match(r'((?:\r\n|\n|\r)*)((?:"(?:[^"]|"")*"|[^"\r\n])*)', head)
    assert found is not None
    return len(found[1].replace("\r\n", "\n")), found[2]


def bad_encoding(file: Path) -> DataFileError | None:
    """The first line that is not UTF-8, with the encoding that it may be in."""
    try:
        with bytes_of(file) as content:
            start = content.read(2)
            if start in (b"\xff\xfe", b"\xfe\xff"):
                return _not_utf8(file, "it is UTF-16", "utf-16")
            content.seek(0)
            for number, line in enumerate(content, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    guess = "cp949" if _decodes(line, "cp949") else "latin-1"
                    what = f"line {number:,} has the byte 0x{line[error.start]:02x}, as {guess} would"
                    return _not_utf8(file, what, guess)
    except (OSError, EOFError):
        return None
    return None


def _not_utf8(file: Path, what: str, encoding: str) -> DataFileError:
    return DataFileError(
        f"'{file.name}' is not UTF-8: {what}.",
        hint=f"Save it as UTF-8, for example with: iconv -f {encoding} -t utf-8 {file.name} > new.csv",
    )


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _records(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record of a CSV file with the line it begins on, from 1."""
    csv.field_size_limit(1 << 30)
    with bytes_of(file) as content:
        lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        begins = 1
        for record in reader:
            yield begins, record
            begins = reader.line_num + 1


def ragged(file: Path, delimiter: str) -> DataFileError | None:
    """The first row with another number of values than the header, or a quote that never ends."""
    expected, last = None, 1
    try:
        for line, record in _records(file, delimiter):
            last = line
            if expected is None:
                expected = len(record) or None
            elif record and len(record) != expected:
                columns = "1 column" if expected == 1 else f"{expected} columns"
                values = "1 value" if len(record) == 1 else f"{len(record)} values"
                return DataFileError(
                    f"'{file.name}', line {line:,} has {values} where the header has {columns}.",
                    hint="Put a text that holds the delimiter in double quotes."
                    if len(record) > expected
                    else "Add what is missing; an empty place counts as NULL.",
                )
    except csv.Error:
        return DataFileError(
            f"'{file.name}' has a quote that does not end, or ends amid a value, after line {last:,}.",
            hint='Write a double quote inside a quoted text twice: "".',
        )
    except (OSError, EOFError, UnicodeDecodeError):
        return None
    return None


def physical_line(file: Path, delimiter: str, record: int) -> int:
    """The line on which a file's ``record`` begins (both from 1), where quoted texts span lines."""
    try:
        for number, (line, _) in enumerate(_records(file, delimiter), start=1):
            if number == record:
                return line
    except (csv.Error, OSError, EOFError, UnicodeDecodeError):
        return record
    return record
