"""Rows of CSV and TSV files and of files with one text a line: each file in its own dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataFileError
from ..warehouse import literal, quote
from . import lossless
from .dialect import Dialect, detect, lines_dialect
from .faults import bytes_of
from .lossless import TextColumn
from .options import ReadOptions

if TYPE_CHECKING:
    import duckdb

_BACKWARD = 1 << 16


def dialects(files: Sequence[Path], format: str, options: ReadOptions) -> list[Dialect]:
    """The dialect of each file; they have the same columns.

    Raises:
        DataFileError: a file has other columns than the first; says which.
    """
    if format == "txt":
        if options.names is not None and len(options.names) != 1:
            raise DataFileError(f"'{files[0].name}' has 1 column, a text a line; columns names more.")
        return [lines_dialect(options.names, options.skip or 0) for _ in files]
    found = [detect(file, format, options) for file in files]
    named = {tuple(sorted(name.casefold() for name in one.columns)) for one in found if one.header}
    for number, (file, one) in enumerate(zip(files, found, strict=True)):
        first_row = tuple(sorted(cell.strip().casefold() for cell in one.first_row))
        if not one.header and options.header is None and first_row in named:  # the names of the other files
            found[number] = detect(file, format, replace(options, header=True))
    for file, one in zip(files[1:], found[1:], strict=True):
        _check_columns(files[0], found[0], file, one)
    return found


def _check_columns(first: Path, ours: Dialect, other: Path, theirs: Dialect) -> None:
    if {name.casefold() for name in ours.columns} == {name.casefold() for name in theirs.columns}:
        return
    raise DataFileError(
        f"'{other.name}' has the columns {_list(theirs.columns)}, and '{first.name}' {_list(ours.columns)}.",
        hint="Files that are read together need the same columns; name one, or choose with a pattern.",
    )


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(name if len(name) <= 40 else name[:39] + "…" for name in names[:8])
    return shown + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def texts(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[Path],
    found: Sequence[Dialect],
    options: ReadOptions,
    notes: list[str],
) -> str:
    """A query that gives the rows of all files, every column VARCHAR, in the files' order.

    Args:
        connection: reads the files.
        files: the files.
        found: the dialect of each.
        options: what is said of them.
        notes: takes what a person should know.
    """
    parts: list[tuple[Dialect, list[Path], int]] = []
    for file, one in zip(files, found, strict=True):
        if options.quote is None and _stray_quotes(connection, file, one):
            one = replace(one, quote="", escape="")
            notes.append(
                f"'{file.name}': quotes are characters like others, because some that begin a value do not "
                "end it; quote='\"' insists on them."
            )
        blank = _blank_lines_at_end(file) if len(one.columns) == 1 and not one.comment else 0
        if parts and parts[-1][0] == one and not blank and not parts[-1][2]:
            parts[-1][1].append(file)
        else:
            parts.append((one, [file], blank))
    columns = ", ".join(map(quote, found[0].columns))
    return " UNION ALL ".join(
        f"SELECT {columns} FROM {_read_csv(connection, one, group, options, blank)}"
        for one, group, blank in parts
    )


def _read_csv(
    connection: duckdb.DuckDBPyConnection,
    dialect: Dialect,
    files: Sequence[Path],
    options: ReadOptions,
    blank: int,
) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in dialect.columns)
    settings = {
        "auto_detect": "false",
        "header": str(dialect.header).lower(),
        "delim": literal(dialect.delimiter),
        "quote": literal(dialect.quote),
        "escape": literal(dialect.escape),
        "comment": literal(dialect.comment),
        "skip": str(dialect.skip),
        "columns": f"{{{columns}}}",
        "allow_quoted_nulls": "false",
    }
    if options.null is not None:
        settings["nullstr"] = lossless.text_literal_list(options.null)
    if options.max_line_size is not None:
        settings["max_line_size"] = str(options.max_line_size)
    given = ", ".join(f"{name} = {value}" for name, value in settings.items())
    relation = f"read_csv({lossless.text_literal_list([str(file) for file in files])}, {given})"
    if not blank:
        return relation
    rows = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0]
    return f"(SELECT * FROM {relation} LIMIT {max(0, rows - blank)})"


def _blank_lines_at_end(file: Path) -> int:
    """Blank lines at the end of a file, which are no rows; DuckDB takes them for rows of one NULL."""
    try:
        with bytes_of(file) as content:
            if file.suffix.lower() in (".gz", ".zst"):
                end = b""
                while chunk := content.read(1 << 20):
                    end = (end + chunk)[-_BACKWARD:]
            else:
                content.seek(max(0, file.stat().st_size - _BACKWARD))
                end = content.read()
    except OSError:
        return 0
    breaks = end[len(end.rstrip(b"\r\n")) :]
    ends = breaks.count(b"\n") or breaks.count(b"\r")
    return max(0, ends - 1)


def _stray_quotes(connection: duckdb.DuckDBPyConnection, file: Path, dialect: Dialect) -> bool:
    """Whether quotes in a tab-separated file are characters: some do not end where a quoted value must.

    Where lines have another number of tabs than the header, texts span lines, and the quotes hold them.
    """
    mark = dialect.quote
    if dialect.delimiter != "\t" or not mark or len(dialect.columns) < 2:
        return False
    inside = f"{mark}(?:[^{mark}]|{mark}{mark})*{mark}"
    value = f"(?:[^{mark}\\t][^\\t]*|{inside}|)"
    well_formed = literal(f"{value}(\\t{value})*")
    relation = _read_csv(
        connection, lines_dialect(("line",), dialect.skip), [file], ReadOptions(max_line_size=1 << 26), 0
    )
    tabs = "length(line) - length(replace(line, chr(9), ''))"
    strays, uneven = connection.execute(
        f"SELECT count(*) FILTER (NOT regexp_full_match(line, {well_formed}, 's')), "
        f"count(*) FILTER ({tabs} <> {len(dialect.columns) - 1}) FROM {relation} WHERE line IS NOT NULL"
    ).fetchall()[0]
    return bool(strays) and not uneven


def typed(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    names: Sequence[str],
    options: ReadOptions,
    *,
    all_rows: bool,
    widened: Mapping[str, str],
) -> tuple[str, list[TextColumn], list[str]]:
    """The rows of ``relation``, all text, in the types of their columns.

    Args:
        connection: reads the relation.
        relation: a query whose columns are VARCHAR.
        names: the columns' names.
        options: types that a person chose.
        all_rows: look at all rows for the types, instead of the first ones.
        widened: types that columns need besides, because of what another file holds; names in lower case.

    Returns:
        A query, its columns, and what a person should know of the types.
    """
    columns = []
    for name in names:
        type_ = "VARCHAR" if options.all_text else options.type_of(name)
        if type_ is None and widened.get(name.casefold()) == "VARCHAR":
            type_ = "VARCHAR"
        columns.append(
            TextColumn(name)
            if type_ is None
            else TextColumn(name, given=True)
            if type_.upper() == "VARCHAR"
            else lossless.given(name, type_, options.decimal)
        )
    decided = lossless.infer(connection, relation, columns, sample=not all_rows, decimal=options.decimal)
    if not all_rows and any(column.test == "false" for column in decided):
        decided = lossless.infer(connection, relation, columns, sample=False, decimal=options.decimal)
    notes = [column.note for column in decided if column.note]
    expressions = [column.expression(number, options.decimal) for number, column in enumerate(decided)]
    return f"SELECT {', '.join(expressions)} FROM ({relation})", decided, notes
