"""Rows of Excel workbooks, after a look at how large a sheet is and what its cells hold."""

from __future__ import annotations

import datetime as dt
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ...errors import DataFileError, did_you_mean
from .dialect import has_header, renamed, unique_names
from .options import ReadOptions

if TYPE_CHECKING:
    import pyarrow as pa

#: Cells that a sheet may have between its first and its last: the reader takes memory for each of them.
MOST_CELLS = 20_000_000
_MOST_XML = 1 << 30  # bytes of a workbook's parts, unpacked
_CHUNK = 1 << 20
_WHOLE = 1e21  # whole numbers from here on are written with an exponent
_NO_WORKBOOK = (KeyError, EOFError, ValueError, RuntimeError, zlib.error, ElementTree.ParseError)
_TAG = re.compile(rb"<(?:\w+:)?(row|c|f|v)\b([^<>]*)>(?=(.?))", re.DOTALL)
_ROW = re.compile(rb'(?<![\w:])r="(\d{1,7})"')
_CELL = re.compile(rb'(?<![\w:])r="([A-Z]{1,3})(\d{1,7})"')


@dataclass
class Cells:
    """How many cells there are of a kind, and the first ones by name."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, row: int, column: int) -> None:
        """Count a cell (row and column from 1)."""
        self.count += 1
        if len(self.names) < 3:
            self.names.append(f"{_letters(column)}{row}")

    def told(self, one: str, many: str) -> str:
        """``2 cells (A1, A2) hold``."""
        names = ", ".join(self.names) + (" …" if self.count > len(self.names) else "")
        return f"1 cell ({names}) {one}" if self.count == 1 else f"{self.count:,} cells ({names}) {many}"


@dataclass(frozen=True)
class Extent:
    """What a sheet's cells reach to, and cells that have no value to read.

    Attributes:
        rows, columns: the last of each with a filled cell.
        errors: cells that hold an error such as ``#DIV/0!``.
        formulas: cells with a formula whose value the program that wrote the file has not computed.
    """

    rows: int
    columns: int
    errors: Cells
    formulas: Cells


def read(file: Path, options: ReadOptions, notes: list[str]) -> pa.Table:
    """The rows of a sheet, the first one or ``options.sheet``, each column in a type that holds its cells.

    Args:
        file: a workbook.
        options: what is said of it.
        notes: takes what a person should know: sheets left out, cells with errors, rows above the names.

    Raises:
        DataFileError: it is no workbook, or has no such sheet, or more cells than can be read.
    """
    import python_calamine as calamine

    try:
        sheets = _sheets(file)
        name = _chosen(file, list(sheets), options.sheet, notes)
        extent = _extent(file, sheets[name])
        if extent.rows * extent.columns > MOST_CELLS:
            raise DataFileError(
                f"Sheet {name} of '{file.name}' reaches to row {extent.rows:,}, column {extent.columns:,}: "
                f"{extent.rows * extent.columns:,} cells, and at most {MOST_CELLS:,} are read.",
                hint="Delete what stands far out, or save the sheet as CSV.",
            )
        with calamine.CalamineWorkbook.from_path(file) as book:
            rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
    except (calamine.CalamineError, zipfile.BadZipFile, *_NO_WORKBOOK) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or "its parts are not what they must be"
        raise DataFileError(
            f"'{file.name}' cannot be read as an Excel workbook: {reason}.",
            hint="Save it again as .xlsx, or as CSV.",
        ) from error
    if extent.errors.count:
        cells = extent.errors.told("holds", "hold")
        notes.append(f"'{file.name}': {cells} an error such as #DIV/0!: NULL in the table.")
    if extent.formulas.count:
        cells = extent.formulas.told("has", "have")
        notes.append(
            f"'{file.name}': {cells} a formula that the program which wrote the file has not computed: NULL "
            "in the table. Open it in a spreadsheet program and save it."
        )
    return _table(file, name, rows, options, notes)


def _table(file: Path, sheet: str, rows: list[list[Any]], options: ReadOptions, notes: list[str]) -> pa.Table:
    import pyarrow as pa

    skip = options.skip or 0
    while skip < len(rows) and not any(map(_filled, rows[skip])):
        skip += 1
    rows = rows[skip:]
    while rows and not any(map(_filled, rows[-1])):
        rows.pop()
    if not rows:
        raise DataFileError(f"Sheet {sheet} of '{file.name}' is empty.", hint="It needs column names.")
    top = [[_text(cell) or "" for cell in row] for row in rows[:200]]
    header = has_header(top) if options.header is None else options.header
    widths = [sum(map(bool, row)) for row in top]
    if header and widths[0] == 1 < max(widths):
        below = next(at for at, width in enumerate(widths) if width > 1)
        notes.append(
            f"Row {skip + 1} of '{file.name}' has 1 value, {next(filter(None, top[0]))[:40]!r}, others "
            f"have more: if it is a title, skip={skip + below} leaves out what stands above the names."
        )
    names = unique_names(top[0] if header else [""] * len(top[0]), notes)
    if not header and options.header is None:
        notes.append(
            f"'{file.name}' has no header, judging by its values: its columns are {names[0]} to {names[-1]}; "
            "header=True takes the first row for names."
        )
    names = renamed(file.name, names, options, header)
    columns = []
    for number, name in enumerate(names):
        cells = [row[number] for row in rows[header:]]
        columns.append(_column(name, cells, options, notes))
    return pa.table(dict(zip(names, columns, strict=True)))


def _column(name: str, cells: list[Any], options: ReadOptions, notes: list[str]) -> pa.Array:
    """The cells of one column in the type that they all have, else as text."""
    import pyarrow as pa

    cells = [cell if _filled(cell) else None for cell in cells]
    kinds = {type(cell) for cell in cells} - {type(None)}
    wanted = "VARCHAR" if options.all_text else options.type_of(name)
    if wanted is None:
        for types, arrow in (
            ({float, int}, pa.float64()),
            ({bool}, pa.bool_()),
            ({dt.date}, pa.date32()),
            ({dt.date, dt.datetime}, pa.timestamp("us")),
            ({dt.time}, pa.time64("us")),
            ({dt.timedelta}, pa.duration("us")),
        ):
            if kinds and kinds <= types:
                if pa.types.is_timestamp(arrow):
                    cells = [_moment(cell) for cell in cells]
                return pa.array(cells, arrow)
        if len(kinds) > 1:
            notes.append(f"Column {name} is text: its cells are of several kinds.")
    return pa.array([_text(cell) for cell in cells], pa.string())


def _moment(cell: Any) -> Any:
    """A day as its first moment."""
    return dt.datetime.combine(cell, dt.time()) if type(cell) is dt.date else cell


def as_text(column: pa.ChunkedArray) -> pa.Array:
    """A column of a sheet as text."""
    import pyarrow as pa

    return pa.array([_text(cell) for cell in column.to_pylist()], pa.string())


def _filled(cell: Any) -> bool:
    return cell is not None and cell != ""


def _text(cell: Any) -> str | None:
    """A cell in the words that DuckDB has for it: ``7``, ``0.25``, ``true``, ``2026-01-02``."""
    if not _filled(cell):
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _WHOLE:
        return str(int(cell))
    if isinstance(cell, dt.timedelta):
        sign = "-" if cell < dt.timedelta() else ""
        minutes, seconds = divmod(abs(cell), dt.timedelta(minutes=1))
        rest = f"{seconds.total_seconds():09.6f}".rstrip("0").rstrip(".")
        return f"{sign}{minutes // 60:02}:{minutes % 60:02}:{rest}"
    return str(cell)


def _chosen(file: Path, names: list[str], wanted: str | None, notes: list[str]) -> str:
    if wanted is not None:
        for name in names:
            if name.casefold() == wanted.casefold():
                return name
        raise DataFileError(
            f"'{file.name}' has no sheet {wanted}.", hint=did_you_mean(wanted, names, "sheets")
        )
    if len(names) > 1:
        left = ", ".join(names[1:6]) + (" …" if len(names) > 6 else "")
        count = "1 sheet is" if len(names) == 2 else f"{len(names) - 1:,} sheets are"
        notes.append(
            f"Sheet {names[0]} of '{file.name}' is read; {count} left out (sheet='…' chooses): {left}."
        )
    return names[0]


def _sheets(file: Path) -> dict[str, str]:
    """The names of a workbook's sheets and the part of the file in which each lies."""
    with zipfile.ZipFile(file) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > _MOST_XML:
            raise DataFileError(
                f"'{file.name}' unpacks to {size:,} bytes; at most {_MOST_XML:,} are read.",
                hint="Save the sheet as CSV.",
            )
        for small in ("xl/_rels/workbook.xml.rels", "xl/workbook.xml"):
            if archive.getinfo(small).file_size > _CHUNK * 16:
                raise ValueError(small)
        relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
        targets = {one.get("Id"): one.get("Target", "") for one in relations}
        book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
        found = {}
        for sheet in book.iter():
            if sheet.tag.rpartition("}")[2] == "sheet":
                relation = next((sheet.attrib[key] for key in sheet.attrib if key.endswith("}id")), None)
                target = targets.get(relation, "")
                if "worksheets/" in target or not target:
                    found[sheet.get("name", "")] = target
        if not found:
            raise DataFileError(f"'{file.name}' has no sheet with cells.", hint="Save the rows as CSV.")
        return found


def _extent(file: Path, target: str) -> Extent:
    """Read a sheet's XML in pieces, without building anything from it; cells without content do not count."""
    part = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    rows = columns = row = column = read = 0
    errors, formulas = Cells(), Cells()
    cell = b""
    waiting = False  # for the value of a formula
    with zipfile.ZipFile(file) as archive, archive.open(part) as content:
        held = b""
        while chunk := content.read(_CHUNK):
            read += len(chunk)
            if read > _MOST_XML:
                raise DataFileError(f"'{file.name}' unpacks to more than {_MOST_XML:,} bytes.")
            held += chunk
            done = 0
            for tag in _TAG.finditer(held):
                if tag.end() == len(held):
                    break  # what follows comes with the next piece
                done = tag.end()
                kind, attributes = tag[1], tag[2]
                if kind == b"f":
                    waiting = b't="str"' not in cell
                    continue
                if kind == b"v":
                    waiting = waiting and (attributes.endswith(b"/") or tag[3] == b"<")
                    continue
                if waiting:
                    formulas.add(row, column)
                    waiting = False
                if kind == b"row":
                    place = _ROW.search(attributes)
                    row, column = int(place[1]) if place else row + 1, 0
                    continue
                cell = attributes
                place = _CELL.search(attributes)
                row, column = (int(place[2]), _column_number(place[1])) if place else (row, column + 1)
                if attributes.endswith(b"/"):
                    continue
                rows, columns = max(rows, row), max(columns, column)
                if b't="e"' in attributes:
                    errors.add(row, column)
            held = held[max(done, len(held) - 4096) :]
    if waiting:
        formulas.add(row, column)
    return Extent(rows, columns, errors, formulas)


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _letters(column: int) -> str:
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
