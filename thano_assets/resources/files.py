"""Data files: which a statement may read, and what kind each is; :mod:`.reading` reads them."""

from __future__ import annotations

import glob
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataFileError, PathRefused, nearest
from . import datasets

if TYPE_CHECKING:
    from .workspace import Workspace

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "txt",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_COMPRESSIBLE = {"csv", "tsv", "txt", "json", "jsonl"}
_RUNS_CODE = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".dill"}
_MEDIA = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"), "an image"),
    **dict.fromkeys((".mp3", ".wav", ".flac", ".ogg", ".m4a"), "sound"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "a video"),
}
_READ = (
    "Files that are read: csv, tsv, txt, json, jsonl, parquet and xlsx; the first five also as .gz or .zst."
)

# Both names under which the tutorial's files are known; the second is where they lie.
_TUTORIAL_FOLDERS = ("tutorial_data/movie_review_data", datasets.FOLDER)
_TUTORIAL_FILES = (datasets.TRAIN_FILE, datasets.TEST_FILE)

_WALK_LIMIT = 5_000  # files looked at for a name like the one that is missing
_WILDCARD = re.compile(r"[*?\[]")


# ------------------------------------------------------------------------------------------------ paths


def states(workspace: Workspace, path: str) -> list[tuple[str, int, int]]:
    """Name, size in bytes and time of the last change (ns since 1970) of each file of :func:`resolve`.

    Raises:
        PathRefused, DataFileError: as :func:`resolve`.
    """
    found = []
    for file in resolve(workspace, path):
        try:
            status = file.stat()
        except FileNotFoundError:  # gone since the listing
            continue
        found.append((str(file), status.st_size, status.st_mtime_ns))
    return found


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


def may_be_read(workspace: Workspace, path: str) -> bool:
    """Whether a path in a query, which may be a pattern, names files in folders that may be read.

    Relative paths start at the process's folder, as DuckDB has them. What is no path is not.
    """
    parts = Path(path).expanduser().parts
    if not parts or not (len(parts) > 1 or Path(path).suffix):  # the name of a function
        return False
    fixed = list(itertools.takewhile(lambda part: not _WILDCARD.search(part), parts))
    pattern = len(fixed) < len(parts)
    try:
        real = Path(*fixed).resolve() if fixed else Path.cwd()
    except (OSError, RuntimeError, ValueError):
        return False
    if pattern and ".." in parts:
        return False
    roots = [root.resolve() for root in workspace.readable_folders]
    own = (
        workspace.warehouse_path.resolve(),
        workspace.snapshots.resolve(),
        workspace.root.resolve() / "mlflow",
    )
    inside = any(real == root or root in real.parents for root in roots)
    return inside and not any(real == one or one in real.parents for one in own)


def _files_of(workspace: Workspace, path: str, found: list[Path]) -> list[Path]:
    if len(found) > 1 or not found[0].is_dir():
        return [one.resolve() for one in found]
    inside = sorted(
        one
        for one in found[0].rglob("*")
        if one.is_file() and not any(part.startswith(".") for part in one.relative_to(found[0]).parts)
    )
    readable = [one for one in inside if _kind(one)[0] is not None]
    # A note or a licence beside tables is no table; a folder of nothing but .txt files is one of texts.
    readable = [one for one in readable if _kind(one)[0] != "txt"] or readable
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


def format_of(file: Path) -> str:
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


def _short(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
