"""Data files: which a statement may read, what is in them, and the SQL that gives their rows.

Tables of every format come from DuckDB's own readers except Excel's, which fastexcel reads into Arrow.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataFileError, PathRefused, ThanoError, nearest
from . import datasets
from .csv_faults import bad_encoding, header_of, physical_line, ragged

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from .workspace import Workspace

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_COMPRESSIBLE = {"csv", "tsv", "json", "jsonl"}
_RUNS_CODE = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".dill"}
_MEDIA = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"), "an image"),
    **dict.fromkeys((".mp3", ".wav", ".flac", ".ogg", ".m4a"), "sound"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "a video"),
}
_READ = "Files that are read: csv, tsv, json, jsonl, parquet and xlsx; csv, tsv and json also as .gz or .zst."

# Both names under which the tutorial's files are known; the second is where they lie.
_TUTORIAL_FOLDERS = ("tutorial_data/movie_review_data", datasets.FOLDER)
_TUTORIAL_FILES = (datasets.TRAIN_FILE, datasets.TEST_FILE)

_WALK_LIMIT = 5_000  # files looked at for a name like the one that is missing
_DELIMITERS = ",\t;|"
_WILDCARD = re.compile(r"[*?\[]")
_CONVERSION = re.compile(
    r"converting column \"(.+?)\"\. Could not convert string \"(.*?)\" to '(\w+)'", re.DOTALL
)


# ------------------------------------------------------------------------------------------------ paths


def resolve(workspace: Workspace, path: str) -> list[Path]:
    """The files that a path in a statement means: a file's, a folder's or a glob's, in order of name.

    A relative path starts at the data folder (or at the workspace, as in ``data/reviews.csv``), else at a
    folder that ``[files] allowed`` adds. Symbolic links count as what they point to. The tutorial's two
    files are made when they are asked for and missing.

    Raises:
        PathRefused: the path leads out of the folders that may be read, or is an address.
        DataFileError: nothing is there, or a folder has no file that can be read.
    """
    text = path.strip()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise PathRefused(
            f"'{path}' is an address, and COPY reads files of this machine only.",
            hint=f"Save the file under {workspace.data} and name it here.",
        )
    if not text or "\0" in text:
        raise DataFileError("The path is empty.", hint=_READ)
    tutorial = _tutorial_file(workspace, text)
    if tutorial is not None:
        return [tutorial]

    try:
        return _resolve(workspace, path, candidates(workspace, text))
    except (OSError, RuntimeError) as error:  # a name too long, a folder without rights, a loop of links
        reason = getattr(error, "strerror", None) or error
        raise DataFileError(f"'{_short(path, 80)}' cannot be read: {reason}.") from error


def _resolve(workspace: Workspace, path: str, candidates: list[Path]) -> list[Path]:
    for candidate in candidates:
        found = _expand(candidate)
        if found:
            for one in found:
                check_inside(workspace, path, one)
            return _files_of(workspace, path, found)
    # What is not there is refused like what is: the answer must not tell which files exist outside.
    check_inside(workspace, path, candidates[0])
    raise missing(workspace, path)


def candidates(workspace: Workspace, text: str) -> list[Path]:
    """Where a path in a statement may lie, the likeliest place first."""
    named = Path(text).expanduser()
    if named.is_absolute():
        return [named]
    root = (workspace.production or workspace).root
    return [folder / named for folder in (workspace.data, root, *workspace.settings.files.allowed)]


def _expand(candidate: Path) -> list[Path]:
    if candidate.exists():
        return [candidate]
    if _WILDCARD.search(str(candidate)):
        matches = glob.glob(str(candidate), recursive=True)  # noqa: PTH207 - patterns of whole paths
        return [Path(one) for one in sorted(matches) if Path(one).is_file()]
    return []


def check_inside(workspace: Workspace, path: str, found: Path, *, reader: str = "COPY") -> None:
    """Check that ``found``, which ``path`` of a statement means, lies in a folder that may be read.

    Raises:
        PathRefused: it does not; links count as what they point to.
    """
    real = found.resolve()
    roots = [root.resolve() for root in workspace.readable_folders]
    if not any(real == root or root in real.parents for root in roots):
        raise PathRefused(
            f"'{path}' is outside the folders that {reader} may read.",
            hint=f"Move it into {workspace.data}, or add its folder to allowed under [files] in "
            f"{workspace.settings_path}.",
        )


def _files_of(workspace: Workspace, path: str, found: list[Path]) -> list[Path]:
    if len(found) > 1 or not found[0].is_dir():
        return [one.resolve() for one in found]
    inside = sorted(
        one
        for one in found[0].rglob("*")
        if one.is_file() and not any(part.startswith(".") for part in one.relative_to(found[0]).parts)
    )
    readable = [one for one in inside if _kind(one)[0] is not None]
    if not readable:
        raise DataFileError(f"The folder '{path}' has no file that can be read.", hint=_READ)
    for one in readable:
        check_inside(workspace, str(Path(path) / one.relative_to(found[0])), one)
    return [one.resolve() for one in readable]


def _tutorial_file(workspace: Workspace, text: str) -> Path | None:
    """Where one of the tutorial's two files lies, made if missing; ``None`` for every other path."""
    plain = os.path.normpath(text).replace(os.sep, "/")
    folder, _, name = plain.rpartition("/")
    if folder not in _TUTORIAL_FOLDERS or name not in _TUTORIAL_FILES:
        return None
    if (workspace.data / plain).exists() and folder != datasets.FOLDER:
        return None  # someone's own file of that name goes first
    place = datasets.folder(workspace) / name
    if not place.exists():
        datasets.complete(workspace)
    check_inside(workspace, text, place)
    return place.resolve()


def missing(workspace: Workspace, path: str) -> DataFileError:
    """The error for a path where nothing is, with names like it that are there."""
    names: list[str] = []
    for root in workspace.readable_folders:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            names += [str((Path(folder) / one).relative_to(root)) for one in files if not one.startswith(".")]
            if len(names) > _WALK_LIMIT:
                break
    names += [f"{folder}/{name}" for folder in _TUTORIAL_FOLDERS for name in _TUTORIAL_FILES]
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(Path(name).name, name)
    close = nearest(path, names) or [by_name[one] for one in nearest(Path(path).name, by_name)]
    hint = f"Paths start at {workspace.data}."
    if close:
        hint = f"Did you mean {' or '.join(repr(one) for one in close)}? {hint}"
    what = "No file matches" if _WILDCARD.search(path) else "There is no file or folder"
    return DataFileError(f"{what} '{path}'.", hint=hint)


def _kind(file: Path) -> tuple[str | None, str | None]:
    """Format and compression by the name's ending; ``None`` where there is none that is known."""
    suffix = file.suffix.lower()
    if suffix in COMPRESSIONS:
        inner = FORMATS.get(Path(file.stem).suffix.lower())
        return (inner if inner in _COMPRESSIBLE else None), COMPRESSIONS[suffix]
    return FORMATS.get(suffix), None


def _format_of(file: Path) -> str:
    kind = _kind(file)[0]
    if kind is not None:
        return kind
    suffix = file.suffix.lower()
    if suffix in _RUNS_CODE:
        raise DataFileError(
            f"'{file.name}' is refused: reading a {suffix} file can run code that is hidden in it.",
            hint="Save the rows as Parquet or CSV.",
        )
    if suffix in _MEDIA:
        raise DataFileError(f"'{file.name}' is {_MEDIA[suffix]}; this engine reads tables.", hint=_READ)
    ending = f"the ending '{suffix}'" if suffix else "a name without an ending"
    raise DataFileError(f"'{file.name}' has {ending}, which tells no format that is read.", hint=_READ)


# ----------------------------------------------------------------------------------------------- source


class TypesGuessedWrong(DataFileError):  # noqa: N818
    """A value does not fit the type that the file's first rows had; see :meth:`RawSource.thorough`."""


@dataclass(frozen=True)
class RawSource:
    """What one COPY reads.

    Attributes:
        files: the files, absolute; none for inline rows.
        format: ``csv``, ``tsv``, ``json``, ``jsonl``, ``parquet``, ``xlsx`` or ``inline``.
        bytes: size of the files as they lie, or of the inline text.
        inline: inline rows as JSON text, else ``None``.
        scratch: folder where inline rows are kept for DuckDB to read.
        all_rows: infer types from all rows instead of the first 20,480.
    """

    files: list[Path]
    format: str
    bytes: int
    inline: str | None = None
    scratch: Path | None = None
    all_rows: bool = False

    def thorough(self) -> RawSource:
        """The same, with types inferred from all rows: reads everything twice and is never wrong."""
        return replace(self, all_rows=True)

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

    def relation(self, connection: duckdb.DuckDBPyConnection) -> str:
        """A query that gives the rows, good for as long as ``connection`` is open.

        Raises:
            DataFileError: an empty file, or one that is not what its name says, as far as that shows
                before reading; what shows while reading comes as DuckDB's error (see :meth:`explain`).
        """
        from .warehouse import literal

        for file in self.files:
            if file.stat().st_size == 0:
                raise DataFileError(
                    f"'{file.name}' is empty.", hint="It needs at least a line of column names."
                )
        if self.format == "xlsx":
            name = f"excel_{hashlib.sha256(str(self.files).encode()).hexdigest()[:16]}"
            connection.register(name, _read_excel(self.files))
            return f'SELECT * FROM "{name}"'
        files = [self._inline_file()] if self.inline is not None else self.files
        listed = "[" + ", ".join(literal(str(file)) for file in files) + "]"
        union = ", union_by_name = true" if len(files) > 1 else ""
        if self.format == "parquet":
            return f"SELECT * FROM read_parquet({listed}{union})"
        sample = ", sample_size = -1" if self.all_rows else ""
        if self.format in ("csv", "tsv"):
            # The dialect is not left to guessing from the first rows: a file whose first quoted text stands
            # far down would be cut up wrongly, a ragged one would lose rows above its widest or be read as
            # one wide column, and rows that begin with # would be taken for comments.
            blank_lines, _ = header_of(self.files[0])
            return (
                f"SELECT * FROM read_csv({listed}, header = true, delim = {literal(self._delimiter())}, "
                f"quote = '\"', escape = '\"', comment = '', skip = {blank_lines}{sample}{union})"
            )
        shape = "newline_delimited" if self.format == "jsonl" else "auto"
        return f"SELECT * FROM read_json({listed}, format = '{shape}'{sample}{union})"

    def explain(self, error: duckdb.Error) -> ThanoError:
        """DuckDB's complaint about the files as one sentence with the file and the line.

        Returns :class:`TypesGuessedWrong` where reading :meth:`thorough` would help.
        """
        text = str(error).split("\nLINE ")[0]  # without the query, which names every file
        file = self._culprit(text)
        name = f"'{file.name}'" if file is not None else "The inline JSON"
        if file is not None and self.format in ("csv", "tsv"):
            found = bad_encoding(file) or ragged(file, self._delimiter())
            if found is not None:
                return found
        place = re.search(r"CSV Error on Line: (\d+)", text)
        line = physical_line(file, self._delimiter(), int(place[1])) if place and file is not None else None
        where = f"{name}, line {line:,}" if line is not None else name
        wrong = re.search(
            r"converting column \"(.+?)\"\. Could not convert string \"(.*?)\" to '(\w+)'", text, re.S
        )
        if wrong:
            column, value, kind = wrong.groups()
            kind_of_error = DataFileError if self.all_rows else TypesGuessedWrong
            return kind_of_error(
                f"{where}: '{_short(value)}' in column {column} is not of its type, {kind}.",
                hint="Correct the value, or put the column's values in one type.",
            )
        if (
            not self.all_rows
            and self.format in ("json", "jsonl", "inline")
            and "auto-detected" in text.lower()
        ):
            return TypesGuessedWrong(f"{where}: {_first_line(text)}", hint="Give each field one type.")
        what = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON lines", "inline": "JSON"}.get(
            self.format, self.format.capitalize()
        )
        return DataFileError(
            f"{where} cannot be read as {what}: {_first_line(text)}",
            hint="Check that the file is whole and what its name says.",
        )

    def _culprit(self, text: str) -> Path | None:
        for file in self.files:
            if str(file) in text:
                return file
        return self.files[0] if self.files else None

    def _delimiter(self) -> str:
        """The delimiter of the header: the one of ``, tab ; |`` that it has most of outside quotes."""
        if self.format == "tsv":
            return "\t"
        header = re.sub(r'"(?:[^"]|"")*"', "", header_of(self.files[0])[1])
        return max(_DELIMITERS, key=lambda one: (header.count(one), -_DELIMITERS.index(one)))

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


def raw_source(workspace: Workspace, path: str | None = None, rows_json: str | None = None) -> RawSource:
    """What a COPY reads: the files of ``path``, or the rows of a JSON text.

    Raises:
        PathRefused, DataFileError: as :func:`resolve`; files of several formats, a format that is not
            read, inline text that is no list of JSON objects.
    """
    if rows_json is not None:
        _check_inline(rows_json)
        size = len(rows_json.encode())
        return RawSource([], "inline", size, inline=rows_json, scratch=workspace.snapshots)
    if path is None:
        raise ValueError("either path or rows_json must be given")
    files = resolve(workspace, path)
    formats = {_format_of(file): file for file in reversed(files)}
    if len(formats) > 1:
        examples = " and ".join(f"{kind} ('{file.name}')" for kind, file in sorted(formats.items()))
        raise DataFileError(
            f"'{path}' holds files of several formats: {examples}.",
            hint=f"Choose one with a pattern, such as '{path.rstrip('/')}/*{files[0].suffix}'.",
        )
    return RawSource(files, next(iter(formats)), sum(file.stat().st_size for file in files))


def _check_inline(text: str) -> None:
    form = 'Inline rows are a JSON list of objects: \'[{"review": "Great!", "sentiment": "positive"}]\'.'
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataFileError(
            f"The inline JSON is broken at its line {error.lineno}, column {error.colno}: {error.msg}.",
            hint=form,
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataFileError("The inline JSON is not a list of objects.", hint=form)
    if not any(rows):
        raise DataFileError("The inline JSON has no columns.", hint=form)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataFileError(f"'{file.name}' cannot be read: {error.strerror or error}.") from error


def _read_excel(files: list[Path]) -> pa.Table:
    """The first sheet of each file, below one another; the first row holds the column names."""
    import fastexcel
    import pyarrow as pa

    tables = []
    for file in files:
        try:
            tables.append(pa.table(fastexcel.read_excel(file).load_sheet(0).to_arrow()))
        except (fastexcel.FastExcelError, pa.ArrowException) as error:
            raise DataFileError(
                f"'{file.name}' cannot be read as an Excel workbook: {_first_line(str(error))}",
                hint="Save it again as .xlsx, or as CSV.",
            ) from error
        if tables[-1].num_columns == 0:
            raise DataFileError(f"The first sheet of '{file.name}' is empty.", hint="It needs column names.")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataFileError(f"The workbooks' columns do not fit: {_first_line(str(error))}") from error


def _first_line(text: str) -> str:
    """The first line of a library's message without its class, ending in a full stop."""
    lines = [
        re.sub(r"^(?:[A-Z]\w*(?: [A-Z]\w*)* ?[Ee]rror: )+", "", line).strip() for line in text.split("\n")
    ]
    known = ("CSV Error on Line", "Original Line")  # the place is told already, in the file's own lines
    line = next((line for line in lines if line and not line.startswith(known)), text.strip())
    return f"{_short(line, 200).rstrip('.')}."


def _short(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
