"""What one COPY reads: its files or inline rows, and the SQL that gives their rows without changing a value.

Tables of every format come from DuckDB's own readers except Excel's, which fastexcel reads into Arrow.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataFileError
from ...system import scratch_file
from ..files import format_of, resolve
from ..warehouse import describe, interrupted, quote
from . import delimited, json_rows, lossless, parquet, workbook
from .dialect import Dialect
from .encoding import codec, not_utf8, write_utf8
from .faults import (
    bytes_of,
    has_mixed_line_ends,
    has_quote_above,
    line_of_value,
    physical_line,
    ragged,
    write_rows_alone,
)
from .options import ReadOptions

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from ..warehouse import Column
    from ..workspace import Workspace

_DELIMITED = ("csv", "tsv", "txt")
_JSON = ("json", "jsonl", "inline")
_OPTIONS_OF = {
    "encoding": (*_DELIMITED, "json", "jsonl"),
    "delimiter": _DELIMITED,
    "quote": _DELIMITED,
    "escape": _DELIMITED,
    "comment": _DELIMITED,
    "null": _DELIMITED,
    "decimal": _DELIMITED,
    "header": (*_DELIMITED, "xlsx"),
    "skip": (*_DELIMITED, "xlsx"),
    "names": (*_DELIMITED, "xlsx"),
    "sheet": ("xlsx",),
    "max_line_size": (*_DELIMITED, "json", "jsonl"),
}


class ReadAgain(Exception):  # noqa: N818 - a second try, not an error that is told
    """Reading showed that the files must be read in another way: as ``source``; ``reason`` is a sentence."""

    def __init__(self, source: RawSource, reason: str) -> None:
        super().__init__(reason)
        self.source, self.reason = source, reason


@dataclass(frozen=True)
class Relation:
    """The rows of a source.

    Attributes:
        sql: A query, good for as long as its connection and its source are open.
        columns: Its columns.
        notes: What a person should know of how the files were read.
    """

    sql: str
    columns: list[Column]
    notes: list[str]


@dataclass(frozen=True)
class RawSource:
    """What one COPY reads.

    Attributes:
        files: the files, absolute; none for inline rows.
        format: ``csv``, ``tsv``, ``txt``, ``json``, ``jsonl``, ``parquet``, ``xlsx`` or ``inline``.
        bytes: size of the files as they lie, or of the inline text.
        inline: inline rows as JSON text, else ``None``.
        scratch: folder for copies that DuckDB reads: of inline rows, and of files in other encodings.
        options: what the statement says of the files.
        all_rows: infer types from all rows instead of the first 20,480.
        line_ends: read copies with one kind of line ends.
    """

    files: list[Path]
    format: str
    bytes: int
    inline: str | None = None
    scratch: Path | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    all_rows: bool = False
    line_ends: bool = False

    def fingerprint(self, digest: Callable[[Path], str] | None = None) -> str:
        """SHA-256 hex of the content: free of the files' names, their order and their times.

        Args:
            digest: gives the SHA-256 hex of a file; by default the file is read.
        """
        whole = hashlib.sha256(self.format.encode())
        if self.inline is not None:
            whole.update(json.dumps(json.loads(self.inline), sort_keys=True).encode())
        for content in sorted(self.digest(file, digest) for file in self.files):
            whole.update(bytes.fromhex(content))
        return whole.hexdigest()

    def digest(self, file: Path, digest: Callable[[Path], str] | None = None) -> str:
        """SHA-256 hex of one of the files."""
        with _reading(file):
            return (digest or _digest)(file)

    @contextmanager
    def relation(
        self, connection: duckdb.DuckDBPyConnection, widened: Mapping[str, str] | None = None
    ) -> Iterator[Relation]:
        """The rows; DuckDB's errors in the block become sentences about the files.

        Args:
            connection: reads them.
            widened: types that columns must have for the rows of other files; names in lower case.

        Raises:
            ReadAgain: the first rows did not tell how to read the others.
            DataFileError: a file is empty, is not what its name says, or holds a value that the type given
                for its column does not.
        """
        import duckdb

        widened = widened or {}
        self._check()
        with ExitStack() as stack:
            copies = self._in_utf8(stack)
            files = list(copies)
            notes: list[str] = []
            dialects: list[Dialect] = []
            names: list[str] = []
            try:
                if self.format in _DELIMITED:
                    dialects = delimited.dialects(files, self.format, self.options)
                    copies, dialects = self._rows_alone(copies, dialects, stack)
                    files = list(copies)
                    notes += [note for one in dialects for note in one.notes]
                    names = list(dialects[0].columns)
                    texts = delimited.texts(connection, files, dialects, self.options, notes)
                    sql, columns, more = delimited.typed(
                        connection,
                        texts,
                        dialects[0].columns,
                        self.options,
                        all_rows=self.all_rows,
                        widened=widened,
                    )
                    notes += more
                    for column in columns:
                        if column.given and column.type != "VARCHAR":
                            note = lossless.respelled(connection, texts, column, self.options.decimal)
                            notes += [note] if note else []
                elif self.format in _JSON:
                    sql, names, notes, copies = self._json(connection, copies, widened, stack)
                elif self.format == "parquet":
                    sql, names = parquet.typed(connection, files, self.options, notes)
                else:
                    texts_ = {name: type_ for name, type_ in widened.items() if type_ == "VARCHAR"}
                    options = replace(self.options, types={**texts_, **self.options.types})
                    tables = [workbook.read(file, options, notes) for file in self.files]
                    names = tables[0].column_names
                    sql = self._one_below_another(connection, tables)
                self._check_given(names)
                sql = in_types(sql, describe(connection, sql), widened)
                yield Relation(sql, describe(connection, sql), _told(notes, copies))
            except duckdb.Error as error:
                if interrupted(error):
                    raise
                raise self._explained(error, copies, dialects, names) from error

    def _check(self) -> None:
        for file in self.files:
            if file.stat().st_size == 0:
                raise DataFileError(
                    f"'{file.name}' is empty.", hint="It needs at least a line of column names."
                )
        plain = ReadOptions()
        for name, formats in _OPTIONS_OF.items():
            if self.format not in formats and getattr(self.options, name) != getattr(plain, name):
                option = "columns=['…']" if name == "names" else name
                what = "inline rows" if self.format == "inline" else f"{self.format} files"
                raise DataFileError(
                    f"{option} says nothing about {what}.",
                    hint=f"It is for files of these kinds: {', '.join(formats)}.",
                )

    def _check_given(self, names: Sequence[str]) -> None:
        folded = {name.casefold() for name in names}
        for name in self.options.types:
            if name.casefold() not in folded:
                shown = ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
                raise DataFileError(
                    f"columns gives a type to {name}, and the file has no such column.",
                    hint=f"Its columns are {shown}.",
                )

    def _in_utf8(self, stack: ExitStack) -> dict[Path, Path]:
        """The files to read, each with the file that it is a copy of."""
        if self.inline is not None:
            inline = self._inline_file()
            return {inline: inline}
        if self.format not in (*_DELIMITED, *_JSON):
            return {file: file for file in self.files}
        encoding = self.options.encoding
        plain = encoding is None or codec(encoding) == "utf-8-sig"
        found: dict[Path, Path] = {}
        for file in self.files:
            if plain and not self.line_ends and not (self.format in _JSON and _has_mark(file)):
                found[file] = file
                continue
            copy = self._scratch(stack, file)
            write_utf8(file, encoding or "utf-8-sig", copy, line_ends=self.line_ends)
            found[copy] = file
        return found

    def _rows_alone(
        self, copies: dict[Path, Path], dialects: list[Dialect], stack: ExitStack
    ) -> tuple[dict[Path, Path], list[Dialect]]:
        """Copies for DuckDB of files with lines that it would read otherwise than a person means them.

        It looks for quotes in lines that it skips, and for the mark of a comment within lines too.
        """
        found: dict[Path, Path] = {}
        plain: list[Dialect] = []
        for (read, file), dialect in zip(copies.items(), dialects, strict=True):
            if dialect.comment or (dialect.skip and has_quote_above(read, dialect)):
                copy = self._scratch(stack, file)
                write_rows_alone(read, dialect, copy)
                found[copy] = file
            else:
                found[read] = file
            plain.append(replace(dialect, comment=""))
        return found, plain

    def _json(
        self,
        connection: duckdb.DuckDBPyConnection,
        copies: dict[Path, Path],
        widened: Mapping[str, str],
        stack: ExitStack,
    ) -> tuple[str, list[str], list[str], dict[Path, Path]]:
        """What :func:`.json_rows.typed` gives, and what is read with the files that it is a copy of."""
        originals, format_ = copies, self.format
        as_written: Mapping[str, str] = {}
        while True:
            try:
                found = json_rows.typed(
                    connection,
                    list(copies),
                    format_,
                    self.options,
                    name=self._name(None),
                    widened=widened,
                    as_written=as_written,
                )
                return *found, copies
            except json_rows.Respelled as again:
                as_written, format_, copies = again.columns, "jsonl", {}
                for read, file in originals.items():
                    copy = self._scratch(stack, file)
                    json_rows.write_as_written(read, as_written, copy)
                    copies[copy] = file

    def _scratch(self, stack: ExitStack, file: Path) -> Path:
        """A temporary file for a copy of ``file``."""
        assert self.scratch is not None
        return stack.enter_context(scratch_file(self.scratch, f".{file.name[:40]}.txt"))

    def _one_below_another(self, connection: duckdb.DuckDBPyConnection, tables: list[pa.Table]) -> str:
        """The rows of several workbooks; a column that has several types among them is text.

        Raises:
            DataFileError: a workbook has other columns than the first.
        """
        import pyarrow as pa

        names = tables[0].column_names
        aligned = []
        for file, table in zip(self.files, tables, strict=True):
            own = {name.casefold(): name for name in table.column_names}
            if own.keys() != {name.casefold() for name in names}:
                raise DataFileError(
                    f"'{file.name}' has the columns {', '.join(table.column_names[:8])}, and "
                    f"'{self.files[0].name}' has {', '.join(names[:8])}.",
                    hint="Workbooks that are read together need the same columns.",
                )
            aligned.append(table.select([own[name.casefold()] for name in names]).rename_columns(names))
        for number, name in enumerate(names):
            filled = [table for table in aligned if table.column(number).null_count < table.num_rows]
            if len({table.schema.field(number).type for table in filled}) > 1:
                aligned = [
                    table.set_column(number, name, workbook.as_text(table[number])) for table in aligned
                ]
        view = f"excel_{hashlib.sha256(str(self.files).encode()).hexdigest()[:16]}"
        connection.register(view, pa.concat_tables(aligned, promote_options="permissive"))
        casts = [self._given_type(name, number) for number, name in enumerate(names)]
        return f"SELECT {', '.join(casts)} FROM {quote(view)}"

    def _given_type(self, name: str, number: int) -> str:
        """SQL of a workbook's column, in the type that was given for it."""
        type_ = self.options.type_of(name)
        if type_ is None or type_ == "VARCHAR":
            return quote(name)
        return lossless.given(name, type_).expression(number)

    def _explained(
        self, error: duckdb.Error, copies: Mapping[Path, Path], dialects: list[Dialect], names: list[str]
    ) -> Exception:
        """DuckDB's complaint about the files as one sentence with the file and the line."""
        text = str(error).split("\nLINE ")[0]  # without the query, which names every file
        read = next((one for one in copies if str(one) in text), next(iter(copies), None))
        number = list(copies).index(read) if read is not None else 0
        file = copies.get(read) if read is not None else None
        name = self._name(file)
        dialect = dialects[number] if dialects else None
        refused = lossless.refused(error)
        if refused is not None:
            return self._refused(names[refused[0]], refused[1], copies, dialects)
        if read is not None and self.inline is None and self.format in (*_DELIMITED, *_JSON):
            found = not_utf8(read)
            if found is not None:
                found.message = found.message.replace(f"'{read.name}'", name)
                return found
        if "max_line_size" in text or "maximum_object_size" in text or "Maximum line size" in text:
            return DataFileError(
                f"{name} has a row that is longer than what is read at once.",
                hint="OPTIONS (max_line_size=100000000) allows rows of a hundred million bytes.",
            )
        if read is not None and dialect is not None:
            if not self.line_ends and has_mixed_line_ends(read) and "state machine" in text:
                reason = f"{name} has line ends of several kinds: reading a copy with one."
                return ReadAgain(replace(self, line_ends=True), reason)
            fault = ragged(read, dialect)
            if fault is not None:
                fault.message = fault.message.replace(f"'{read.name}'", name)
                return fault
        place = re.search(r"CSV Error on Line: (\d+)", text)
        if place and read is not None and dialect is not None:
            name = f"{name}, line {physical_line(read, dialect, int(place[1])):,}"
        what = {"jsonl": "JSON lines", "inline": "JSON"}.get(self.format, self.format.upper())
        return DataFileError(
            f"{name} cannot be read as {what if what != 'PARQUET' else 'Parquet'}: {_first_line(text)}",
            hint="Check that the file is whole and what its name says.",
        )

    def _refused(
        self, name: str, value: str, copies: Mapping[Path, Path], dialects: list[Dialect]
    ) -> Exception:
        """A value that its column's type does not hold."""
        type_ = self.options.type_of(name)
        if type_ is None:
            reason = "A later row does not fit the types of the first ones: reading all rows first."
            return ReadAgain(replace(self, all_rows=True), reason)
        where = self._name(None)
        for (read, file), dialect in zip(copies.items(), dialects, strict=False):
            own = [one.casefold() for one in dialect.columns].index(name.casefold())
            line = line_of_value(read, dialect, own, value)
            if line is not None:
                where = f"'{file.name}', line {line:,}"
                break
        return DataFileError(
            f"{where}: {_short(value)!r} in column {name} is no {type_}.",
            hint=f"Correct the value, or leave {name} out of columns, for a type that holds all values.",
        )

    def _name(self, file: Path | None) -> str:
        if file is None and self.files:
            file = self.files[0]
        return f"'{file.name}'" if file is not None and self.inline is None else "The inline JSON"

    def _inline_file(self) -> Path:
        assert self.inline is not None
        assert self.scratch is not None
        target = self.scratch / "inline" / f"{hashlib.sha256(self.inline.encode()).hexdigest()}.json"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=target.parent, encoding="utf-8", delete=False) as file:
                file.write(self.inline)
            Path(file.name).replace(target)
        return target


def raw_source(
    workspace: Workspace,
    path: str | None = None,
    rows_json: str | None = None,
    options: ReadOptions | None = None,
) -> RawSource:
    """What a COPY reads: the files of ``path``, or the rows of a JSON text.

    Raises:
        PathRefused, DataFileError: as :func:`thano_assets.resources.files.resolve`; files of several
            formats, a format that is not read, inline text that is no list of JSON objects.
    """
    options = options or ReadOptions()
    scratch = workspace.snapshots
    if rows_json is not None:
        _check_inline(rows_json)
        return RawSource([], "inline", len(rows_json.encode()), rows_json, scratch, options)
    if path is None:
        raise ValueError("either path or rows_json must be given")
    files = resolve(workspace, path)
    formats = {format_of(file): file for file in reversed(files)}
    if set(formats) == {"txt"} and (
        options.delimiter is not None or (options.header and options.names is None)
    ):
        formats = {"csv": files[0]}  # whoever names a delimiter means a table
    if len(formats) > 1:
        examples = " and ".join(f"{kind} ('{file.name}')" for kind, file in sorted(formats.items()))
        raise DataFileError(
            f"'{path}' holds files of several formats: {examples}.",
            hint=f"Choose one with a pattern, such as '{path.rstrip('/')}/*{files[0].suffix}'.",
        )
    size = sum(file.stat().st_size for file in files)
    return RawSource(files, next(iter(formats)), size, None, scratch, options)


def _check_inline(text: str) -> None:
    form = 'Inline rows are a JSON list of objects: \'[{"review": "Great!", "sentiment": "positive"}]\'.'
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataFileError(
            f"The inline JSON is broken at its line {error.lineno}, column {error.colno}: {error.msg}.",
            hint=form,
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deep, or a number of thousands of digits
        raise DataFileError(
            "The inline JSON is nested too deep, or has a number too long.", hint=form
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataFileError("The inline JSON is not a list of objects.", hint=form)
    if not any(rows):
        raise DataFileError("The inline JSON has no columns.", hint=form)


def in_types(sql: str, columns: list[Column], types: Mapping[str, str]) -> str:
    """A query of ``columns`` with some of them in other types; names in lower case."""
    casts = [
        f"CAST({quote(column.name)} AS {types[column.name.casefold()]}) AS {quote(column.name)}"
        for column in columns
        if types.get(column.name.casefold(), column.type) != column.type
    ]
    return f"SELECT * REPLACE ({', '.join(casts)}) FROM ({sql})" if casts else sql


def _told(notes: list[str], copies: Mapping[Path, Path]) -> list[str]:
    """The notes, once each, about the files as the person knows them."""
    told = list(dict.fromkeys(notes))
    for copy, file in copies.items():
        told = [note.replace(f"'{copy.name}'", f"'{file.name}'") for note in told]
    return (
        told if len(told) <= 20 else [*told[:20], f"{len(told) - 20:,} more notes of this kind are left out."]
    )


def _has_mark(file: Path) -> bool:
    try:
        with bytes_of(file) as content:
            return content.read(3) == b"\xef\xbb\xbf"
    except OSError:
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataFileError(f"'{file.name}' cannot be read: {error.strerror or error}.") from error


def _first_line(text: str) -> str:
    """The first line of a library's message without its class, ending in a full stop."""
    text = re.sub(r' in file "[^"]*"', "", text)  # the file is named already
    lines = [
        re.sub(r"^(?:[A-Z]\w*(?: [A-Z]\w*)* ?[Ee]rror: )+", "", line).strip() for line in text.split("\n")
    ]
    known = ("CSV Error on Line", "Original Line")  # the place is told already, in the file's own lines
    line = next((line for line in lines if line and not line.startswith(known)), text.strip())
    return f"{_short(line, 200).rstrip('.')}."


def _short(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
