"""What a workspace takes on disk (``thano du``), and what of it can go (``thano clean``)."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import Catalog
from thano_assets.system import is_abandoned, remove_abandoned

if TYPE_CHECKING:
    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

_DAY = 86_400.0
#: Files that Thano makes in the system's temporary folder begin so; those of killed processes stay there.
TEMPORARY = re.compile(r"thano-(model|mlflow|artifact|training|upload|code|events|nothing|notebook)-")


@dataclass(frozen=True)
class Part:
    """A part of a workspace: what it is, where, its size in bytes, and how many files."""

    name: str
    path: Path
    bytes: int
    files: int


@dataclass(frozen=True)
class Leftover:
    """Something that can be removed: what it is, its size in bytes, and where it lies."""

    what: str
    bytes: int
    path: Path | None = None
    version: tuple[str, int] | None = None


def usage(workspace: Workspace) -> list[Part]:
    """The parts of a workspace with their sizes, the largest first; a file with two names counts once."""
    parts = {
        "data files": workspace.root / "data",
        "tables": workspace.warehouse_path,
        "training sets and snapshots": workspace.snapshots,
        "kept predictions and vectors": workspace.snapshots / "answers",
        "models and runs": workspace.mlflow,
        "base models": workspace.models_cache,
        "Dagster's history": workspace.dagster_home,
        "statements": workspace.statements,
        "environments": workspace.root / "environments",
    }
    seen: set[tuple[int, int]] = set()
    found = []
    # What lies inside another part is counted there alone.
    for name, path in sorted(parts.items(), key=lambda one: -len(one[1].parts)):
        size, files = _size(path, seen)
        if files:
            found.append(Part(name, path, size, files))
    return sorted(found, key=lambda part: -part.bytes)


def _size(path: Path, seen: set[tuple[int, int]] | None = None) -> tuple[int, int]:
    """Bytes and files at ``path``; those in ``seen`` (device and number) are left out, and others added."""
    seen = set() if seen is None else seen
    size = files = 0
    for one in [path] if path.is_file() else path.rglob("*"):
        try:
            found = one.lstat()
        except OSError:
            continue
        if one.is_dir() or (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        size += found.st_size
        files += 1
    return size, files


def leftovers(runtime: Runtime, catalog: Catalog, keep: int | None) -> list[Leftover]:
    """What can be removed without anything having to be made again that a person asked for.

    Args:
        runtime: The workspace's resources.
        catalog: Its statements, which may name versions.
        keep: Versions of each model that stay, the newest ones; ``None`` keeps all. A version stays too that
            has an alias, is named by a statement, or was gone on from.
    """
    workspace = runtime.workspace
    versions = {name: runtime.registry.versions(name) for name in runtime.registry.models()}
    found = list(_versions(versions, catalog, keep))
    going = {one.version for one in found}
    staying = [one for known in versions.values() for one in known if (one.name, one.version) not in going]
    found += _snapshots(workspace, staying)
    found += _checkpoints(workspace)
    found += [
        Leftover("a file of a process that was killed", _size(path)[0], path)
        for folder in (workspace.snapshots, *(workspace.snapshots / "answers").glob("*"))
        for path in folder.glob(".stage-*")
        if is_abandoned(path)
    ]
    found += _temporary()
    return found


def remove(found: list[Leftover], runtime: Runtime) -> int:
    """Remove what :func:`leftovers` found; returns the bytes that were freed."""
    freed = 0
    for one in found:
        if one.version is not None:
            runtime.registry.delete(*one.version)
        elif one.path is not None and one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
        elif one.path is not None:
            one.path.unlink(missing_ok=True)
        freed += one.bytes
    remove_abandoned(runtime.workspace.snapshots)
    return freed


def _versions(
    versions: dict[str, list[ModelVersion]], catalog: Catalog, keep: int | None
) -> Iterator[Leftover]:
    if keep is None:
        return
    texts = "\n".join(entry.text for entry in catalog.entries())
    named = {int(number) for number in re.findall(r"(?i)\bVERSION\s+(\d{1,9})\b", texts)}
    parents = {one.tags.get("thano.parent") for known in versions.values() for one in known}
    for name, known in versions.items():
        for version in known[: len(known) - keep]:
            used = version.aliases or version.version in named
            if not used and f"{name} VERSION {version.version}" not in parents:
                size = _size(version.path.parent)[0]
                yield Leftover(
                    f"model {name}, version {version.version}", size, None, (name, version.version)
                )


def _snapshots(workspace: Workspace, versions: list[ModelVersion]) -> Iterator[Leftover]:
    """Training sets that no version was trained on and no model would be: those of before its last ones."""
    used = {version.tags.get(tag, "") for version in versions for tag in _SNAPSHOT_TAGS}
    for pointer in (workspace.snapshots / "training_sets").glob("*.json"):
        try:
            used |= set(re.findall(r"[0-9a-f]{64}", pointer.read_text(encoding="utf-8")))
        except OSError:
            return
    if (workspace.root / "environments").is_dir():
        return  # they may have been trained on these too
    hour = time.time() - 3600
    for path in workspace.snapshots.glob("*.parquet"):
        if path.stem not in used and path.stat().st_mtime < hour and re.fullmatch("[0-9a-f]{64}", path.stem):
            yield Leftover("a training set of no version", path.stat().st_size, path)
    inline = workspace.snapshots / "inline"
    for path in inline.glob("*.json"):
        yield Leftover("rows that stood in a statement", path.stat().st_size, path)


_SNAPSHOT_TAGS = ("thano.training_set", "thano.training_set_identity", "thano.evaluated_on")


def _checkpoints(workspace: Workspace) -> Iterator[Leftover]:
    """States of trainings that were stopped more than a day ago."""
    folder = workspace.models_cache / "checkpoints"
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.stat().st_mtime < time.time() - _DAY:
            yield Leftover("a training that was stopped", _size(path)[0], path)


def _temporary() -> Iterator[Leftover]:
    """Folders in the system's temporary folder that nobody has touched for a day."""
    for path in Path(tempfile.gettempdir()).glob("thano-*"):
        try:
            old = path.stat().st_mtime < time.time() - _DAY
        except OSError:
            continue
        if old and TEMPORARY.match(path.name):
            yield Leftover("a temporary folder of a process that is gone", _size(path)[0], path)
