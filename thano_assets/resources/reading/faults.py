"""What is wrong with a delimited file: read again in Python once DuckDB has complained, to name the line.

DuckDB counts records where texts span lines, and of some faults it only says that it could not detect
a dialect. Compressed files are read through.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ...errors import DataFileError

if TYPE_CHECKING:
    from .dialect import Dialect

_CHUNK = 1 << 20


@contextmanager
def bytes_of(file: Path) -> Iterator[IO[bytes]]:
    """The file's content, decompressed.

    Raises:
        OSError: it cannot be read, or what is compressed is damaged.
    """
    try:
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
    except (zlib.error, EOFError) as error:
        raise OSError(f"its compressed content is damaged ({error})") from error


def has_mixed_line_ends(file: Path) -> bool:
    """Whether some lines end in ``\\r\\n`` and others in ``\\n`` or ``\\r`` alone."""
    kinds: set[bytes] = set()
    try:
        with bytes_of(file) as content:
            last = b""
            while chunk := content.read(_CHUNK):
                chunk = last + chunk
                last = b"\r" if chunk.endswith(b"\r") else b""
                chunk = chunk[: len(chunk) - len(last)]
                pairs = chunk.count(b"\r\n")
                if pairs:
                    kinds.add(b"\r\n")
                if chunk.count(b"\n") > pairs:
                    kinds.add(b"\n")
                if chunk.count(b"\r") > pairs:
                    kinds.add(b"\r")
    except OSError:
        return False
    return len(kinds) > 1


def has_quote_above(file: Path, dialect: Dialect) -> bool:
    """Whether a line above the header has a quote."""
    with bytes_of(file) as content:
        return any('"' in line for line in itertools.islice(_text_lines(content), dialect.skip))


def write_rows_alone(file: Path, dialect: Dialect, copy: Path) -> None:
    """Copy a delimited file with blank lines above its header, so that lines keep their numbers.

    Lines that begin with the mark of a comment are blank too, or left out where a blank line would be a row.
    A mark inside a quoted text is the text's.
    """
    quoted = False
    with (
        bytes_of(file) as content,
        copy.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out,
    ):
        for number, line in enumerate(_text_lines(content)):
            end = line[len(line.rstrip("\r\n")) :]
            if number < dialect.skip:
                out.write(end)
            elif dialect.comment and not quoted and line.startswith(dialect.comment):
                out.write(end if len(dialect.columns) > 1 else "")
            else:
                quoted = _ends_quoted(line, dialect, quoted)
                out.write(line)


def _text_lines(content: IO[bytes]) -> Iterator[str]:
    """Lines with their ends, whichever these are; bytes that are not UTF-8 are kept as they are."""
    return iter(io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline=""))


def _ends_quoted(line: str, dialect: Dialect, quoted: bool) -> bool:
    """Whether a line ends inside a quoted value; ``quoted`` says whether it begins in one."""
    quote, escape, delimiter = dialect.quote, dialect.escape, dialect.delimiter
    if not quote or (quote not in line and not quoted):
        return False
    place = 0
    while True:
        if not quoted:
            if line.startswith(quote, place):
                quoted, place = True, place + len(quote)
            else:
                place = line.find(delimiter, place)
                if place < 0:
                    return False
                place += len(delimiter)
            continue
        if place >= len(line):
            return True
        if escape != quote and escape and line.startswith(escape, place):
            place += len(escape) + 1
        elif line.startswith(quote * 2, place) and escape == quote:
            place += 2 * len(quote)
        elif line.startswith(quote, place):
            place = line.find(delimiter, place)
            if place < 0:
                return False
            quoted, place = False, place + len(delimiter)
        else:
            place += 1


def _records(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Each record of a delimited file with the line it begins on, from 1."""
    csv.field_size_limit(1 << 30)
    with bytes_of(file) as content:
        lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        for _ in range(dialect.skip):
            lines.readline()
        if len(dialect.delimiter) > 1:
            for number, line in enumerate(lines, start=dialect.skip + 1):
                yield number, line.rstrip("\r\n").split(dialect.delimiter)
            return
        if dialect.quote:
            reader = csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
        else:
            reader = csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE)
        begins = dialect.skip + 1
        for record in reader:
            yield begins, record
            begins = dialect.skip + reader.line_num + 1


def ragged(file: Path, dialect: Dialect) -> DataFileError | None:
    """The first row with another number of values than the columns, or a quote that never ends."""
    expected, last = len(dialect.columns), dialect.skip + 1
    other = "the header has" if dialect.header else "the first row has"
    columns = f"{other} 1 column" if expected == 1 else f"{other} {expected} columns"
    try:
        for line, record in _records(file, dialect):
            last = line
            if not record or len(record) == expected:
                continue
            if dialect.comment and record[0].startswith(dialect.comment):
                continue
            values = "1 value" if len(record) == 1 else f"{len(record)} values"
            if len(record) < expected:
                hint = "Add what is missing; an empty place counts as NULL."
            elif expected == 1:
                hint = (
                    "Put a text that holds the delimiter in double quotes; where a title stands above the "
                    "names of the columns, OPTIONS (skip=1) leaves it out."
                )
            else:
                hint = "Put a text that holds the delimiter in double quotes."
            return DataFileError(f"'{file.name}', line {line:,} has {values} where {columns}.", hint=hint)
    except csv.Error:
        return DataFileError(
            f"'{file.name}' has a quote that does not end, or ends amid a value, after line {last:,}.",
            hint='Write a double quote inside a quoted text twice: "". Where quotes are characters like '
            "others, OPTIONS (quote=None) reads them so.",
        )
    except (OSError, UnicodeDecodeError):
        return None
    return None


def physical_line(file: Path, dialect: Dialect, record: int) -> int:
    """The line on which a file's ``record`` begins (both from 1), where quoted texts span lines."""
    try:
        for number, (line, _) in enumerate(_records(file, dialect), start=dialect.skip + 1):
            if number == record:
                return line
    except (csv.Error, OSError, UnicodeDecodeError):
        return record
    return record


def line_of_value(file: Path, dialect: Dialect, column: int, value: str) -> int | None:
    """The line of the first record whose ``column`` (from 0) begins with ``value``; ``None`` if none does."""
    try:
        for line, record in _records(file, dialect):
            if column < len(record) and record[column][: len(value)] == value:
                return line
    except (csv.Error, OSError, UnicodeDecodeError):
        return None
    return None
