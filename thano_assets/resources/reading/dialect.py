"""The dialect of one delimited file: what stands before its header, delimiter, quotes, names of columns.

Found from the file's first megabyte, for each file by itself, and only where COPY's options do not say it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DataFileError
from .encoding import not_utf8
from .faults import bytes_of
from .options import ReadOptions

#: How files begin that are none of text, whatever their names say.
_NO_TEXT = {
    b"\x1f\x8b": "compressed with gzip (.gz)",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard (.zst)",
    b"PK\x03\x04": "a zip archive or a workbook (.xlsx)",
    b"PAR1": "a Parquet file (.parquet)",
}
DELIMITERS = ",\t;|"
_HEAD = 1 << 20  # bytes of a file that are looked at
_RECORDS = 200  # rows among them
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)?|\.\d+)([eE][+-]?\d+)?%?")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}.*)?")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "?"}
_LONG = 40  # characters from which a value is rather a text than a name


@dataclass(frozen=True)
class Dialect:
    """How the rows of one file are written.

    Attributes:
        delimiter: Between values; one that no text has, for files of one text a line.
        quote: Around values, or ``''``.
        escape: Before a quote inside a quoted value.
        header: Whether a row of names stands first.
        skip: Lines before that row, or before the first row of values.
        comment: What lines to leave out begin with, or ``''``.
        columns: Names of the columns, all different.
    """

    delimiter: str
    quote: str
    escape: str
    header: bool
    skip: int
    comment: str
    columns: tuple[str, ...]
    first_row: tuple[str, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


#: Texts hold no such run of characters, so that a line is one value.
NO_DELIMITER = "\x01\x1e\x1f\x02"


def lines_dialect(columns: tuple[str, ...] | None = None, skip: int = 0) -> Dialect:
    """The dialect of a file that has one text a line."""
    return Dialect(NO_DELIMITER, "", "", False, skip, "", columns or ("text",))


def detect(file: Path, format: str, options: ReadOptions) -> Dialect:
    """The dialect of ``file``, which is UTF-8.

    Args:
        file: a delimited file.
        format: ``csv`` or ``tsv``.
        options: what is said of it.

    Raises:
        DataFileError: it has no row, or ``names`` are not as many as its columns.
    """
    text, whole = _head(file)
    notes: list[str] = []
    delimiter = options.delimiter or ("\t" if format == "tsv" else None)
    skip, rest, named = _leading_lines(text, options, delimiter, notes, file.name)
    delimiter = delimiter or named
    quote = '"' if options.quote is None else options.quote
    if delimiter is None:
        delimiter = _delimiter(rest, quote, options.comment, whole)
    records = parsed(rest, delimiter, quote, options, whole)
    if not records:
        raise DataFileError(f"'{file.name}' has no rows.", hint="It needs at least a line of column names.")
    if any("\0" in cell for cell in records[0]):
        raise DataFileError(
            f"'{file.name}' has NUL characters in its first row.",
            hint="Where it is UTF-16 without a byte order mark, OPTIONS (encoding='utf-16-le') reads it.",
        )
    header = has_header(records) if options.header is None else options.header
    names = unique_names(records[0] if header else [""] * len(records[0]), notes)
    if not header and options.header is None:
        shown = ", ".join(cell[:20] for cell in records[0][:3])
        notes.append(
            f"'{file.name}' has no header, judging by its values ({shown}): its columns are {names[0]}"
            + (f" to {names[-1]}" if len(names) > 1 else "")
            + "; header=True takes the first row for names, columns=['…'] names the columns."
        )
    return Dialect(
        delimiter,
        quote,
        options.escape if options.escape is not None else quote,
        header,
        skip,
        options.comment or "",
        renamed(file.name, names, options, header),
        tuple(records[0]),
        tuple(notes),
    )


def renamed(file: str, names: tuple[str, ...], options: ReadOptions, header: bool) -> tuple[str, ...]:
    """The names of the columns as the person has them.

    Raises:
        DataFileError: they are more or fewer than the columns.
    """
    new = options.names
    if new is None and not header and len(options.types) == len(names):
        folded = {name.casefold() for name in names}
        if not any(name.casefold() in folded for name in options.types):
            new = tuple(
                options.types
            )  # columns={'label': 'BIGINT', 'text': 'VARCHAR'} of a file without names
    if new is None:
        return names
    if len(new) != len(names):
        raise DataFileError(
            f"'{file}' has {_columns(len(names))}, and columns names {len(new)}.",
            hint=f"Its first ones are {', '.join(names[:5])}.",
        )
    return new


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count:,} columns"


def unique_names(cells: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    """Names of columns from the cells of a header: ``column3`` for an empty one, ``a_1`` for a second a."""
    taken: set[str] = set()
    names = []
    for number, cell in enumerate(cells):
        wanted = cell.strip() or f"column{number}"
        if not cell.strip() and any(map(str.strip, cells)):
            notes.append(f"Column {number + 1} has no name in the file: it is {wanted}.")
        elif cell != wanted and cell.strip():
            notes.append(f"The name {cell!r} is {wanted} in the table, without blanks around it.")
        name, again = wanted, 0
        while name.casefold() in taken:
            again += 1
            name = f"{wanted}_{again}"
        if again:
            notes.append(f"Two columns are called {wanted}: the second is {name} in the table.")
        taken.add(name.casefold())
        names.append(name)
    return tuple(names)


def _head(file: Path) -> tuple[str, bool]:
    """The text of the first megabyte, cut at a line's end, and whether that is all.

    Raises:
        DataFileError: the file cannot be read, or is not compressed as its name says.
    """
    try:
        with bytes_of(file) as content:
            head = content.read(_HEAD)
            whole = not content.read(1)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise DataFileError(
            f"'{file.name}' cannot be read: {reason}.",
            hint="Check that the file is whole and what its name says.",
        ) from error
    for mark, what in _NO_TEXT.items():
        if head.startswith(mark):
            raise DataFileError(
                f"'{file.name}' is {what}, not text.", hint="Give it the ending of what it is."
            )
    if not whole and b"\n" in head:
        head = head[: head.rindex(b"\n") + 1]
    try:
        return head.decode("utf-8-sig"), whole
    except UnicodeDecodeError as error:
        found = not_utf8(file)
        if found is not None:
            raise found from error
        return head.decode("utf-8-sig", errors="replace"), whole  # a character that the piece's end cuts


def _leading_lines(
    text: str, options: ReadOptions, delimiter: str | None, notes: list[str], file: str
) -> tuple[int, str, str | None]:
    """Lines before the header, the text from there on, and the delimiter that a ``sep=`` line names."""
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text)
    skip = min(options.skip or 0, len(lines))
    named = None
    comments: list[int] = []
    while skip < len(lines):
        line = lines[skip].strip("\r\n\ufeff")
        says = re.fullmatch(r'"?sep=(.)"?', line, re.IGNORECASE)
        if says and named is None:
            named = says[1]
        elif line.startswith("#") and options.comment is None and options.quote != "#" and not named:
            comments.append(skip)
        elif line.strip() and not (options.comment and line.startswith(options.comment)):
            break
        skip += 1
    if comments and _is_header(lines[comments[-1]], lines[skip : skip + 1], delimiter):
        skip = comments.pop()  # "#id,label": the names themselves begin with the mark
    if comments:
        lines_ = "1 line" if len(comments) == 1 else f"{len(comments):,} lines"
        notes.append(f"'{file}': {lines_} above the header left out, which begin with #.")
    return skip, "".join(lines[skip:]), named


def _is_header(line: str, following: Sequence[str], delimiter: str | None) -> bool:
    """Whether a line that begins with # holds the names of the columns: it has as many values as the next."""
    after = following[0].strip("\r\n") if following else ""
    if not after:
        return bool(not following and any(one in line for one in delimiter or DELIMITERS))
    one = delimiter or max(DELIMITERS, key=after.count)
    return (
        bool(after.count(one))
        and after.count(one) == line.count(one)
        and has_header([line.strip("\r\n").split(one), after.split(one)])
    )


def _delimiter(text: str, quote: str, comment: str | None, whole: bool) -> str:
    """The one of ``, tab ; |`` that cuts every row into as many values; else the header's most frequent."""
    widths: dict[str, tuple[bool, int]] = {}
    for one in DELIMITERS:
        records = parsed(text, one, quote, ReadOptions(comment=comment), whole)
        width = len(records[0]) if records else 0
        if width > 1:
            widths[one] = (all(len(record) == width for record in records), width)
    return max(widths, key=lambda one: (*widths[one], -DELIMITERS.index(one)), default=",")


def parsed(text: str, delimiter: str, quote: str, options: ReadOptions, whole: bool) -> list[list[str]]:
    """The first rows of a text as lists of values, blank lines and comments left out."""
    if len(delimiter) > 1:  # Python's reader takes one character
        rows = [line.split(delimiter) for line in text.splitlines()[:_RECORDS] if line]
        return [row for row in rows if not (options.comment and row[0].startswith(options.comment))]
    csv.field_size_limit(1 << 30)
    kind: dict[str, object] = {"delimiter": delimiter, "strict": False}
    if quote:
        kind["quotechar"] = quote
        if options.escape and options.escape != quote:
            kind |= {"escapechar": options.escape, "doublequote": False}
    else:
        kind["quoting"] = csv.QUOTE_NONE
    records: list[list[str]] = []
    try:
        for record in csv.reader(io.StringIO(text, newline=""), **kind):  # type: ignore[arg-type]
            if record and not (options.comment and record[0].startswith(options.comment)):
                records.append(record)
            if len(records) > _RECORDS:
                return records[:-1]
    except csv.Error:
        pass
    return records if whole or len(records) < 2 else records[:-1]


# ----------------------------------------------------------------------------------------------- header


def has_header(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds names, judged by how it differs from the rows below it.

    A number above numbers speaks against, a word above numbers for names; so does a value that comes again
    in its column, or a sentence above sentences. Where nothing tells, the first row has names, as mostly.
    """
    first, rest = records[0], [row for row in records[1:] if len(row) == len(records[0])]
    if list(first) in [list(row) for row in rest]:
        return not any(map(_typed, first))  # the header once more, as in files that were put together
    for_names = against = 0
    for number, cell in enumerate(first):
        below = [row[number] for row in rest]
        filled = [value for value in below if value.strip().casefold() not in _MISSING]
        if filled and sum(map(_typed, filled)) >= 0.8 * len(filled):
            if _typed(cell):
                against += 1
            elif cell.strip().casefold() not in _MISSING:
                for_names += 1
        elif not rest and _typed(cell):
            against += 1
    if against and _numbered(first):
        return True
    if for_names or against:
        return for_names >= against
    if not any(cell.strip() for cell in first):
        return False
    return not any(_is_value(cell, [row[number] for row in rest]) for number, cell in enumerate(first))


def _typed(value: str) -> bool:
    value = value.strip()
    return bool(_NUMBER.fullmatch(value) or _DATE.fullmatch(value))


def _numbered(first: Sequence[str]) -> bool:
    """Whether names are numbers: years in a row, or the columns' own places."""
    cells = [cell.strip() for cell in first]
    if len(cells) > 1 and cells == [str(number) for number in range(len(cells))]:
        return True
    numbers = [int(cell) for cell in cells if cell.isdigit()]
    return len(numbers) > 1 and all(
        1900 <= number <= 2100 and number == numbers[0] + place for place, number in enumerate(numbers)
    )


def _is_value(cell: str, below: Sequence[str]) -> bool:
    """Whether a cell of the first row, all of them words, is rather a value of its column than its name."""
    cell = cell.strip()
    filled = [value.strip() for value in below if value.strip()]
    if not cell:
        return False
    if cell in filled:
        return True
    if not filled:
        return len(cell) > _LONG and " " in cell
    middle = sorted(map(len, filled))[len(filled) // 2]
    sentence = " " in cell and (len(cell) > _LONG or cell[-1] in ".!?…。")
    return sentence and middle >= len(cell) / 3 and any(" " in value for value in filled)
