"""What is damaged in a workspace, file by file, and how it is mended.

Read only when something has gone wrong, and by ``thano doctor``. Each damage names a file and its cure; what
can be mended without losing more is mended by ``thano doctor --repair``, which keeps the damaged file beside
the new one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.catalog import EntryKind, entry_of
from thano_assets.errors import ThanoError
from thano_assets.learning.model_folder import folder_damage, is_json, safetensors_damage, weights_digest
from thano_assets.resources.backup import backup_of, sqlite_damage
from thano_assets.resources.dagster_home import dagster_yaml
from thano_assets.resources.environments import registry_of
from thano_assets.resources.settings import SETTINGS_TEXT, QueueSettings, read_settings
from thano_assets.sql import parse
from thano_assets.sql.grammar import CHAMPION

if TYPE_CHECKING:
    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

_DUCKDB, _DUCKDB_PLACE = b"DUCK", 8
_REPAIR = "`thano doctor --repair` mends it"
_AGAIN = f"{_REPAIR}: it is made again when needed."
_ROWS_LOST = (
    f"{_REPAIR}: it is put aside, and the next BUILD MODEL keeps its rows again; versions that were trained "
    "on these can no longer be rebuilt or checked against them."
)


@dataclass(frozen=True)
class Damage:
    """A file of a workspace that is not what it must be.

    Attributes:
        path: The file.
        what: What is wrong, to stand after the file's name.
        cure: What to do, as a sentence.
        repair: Mends it and says what was done; ``None`` where only a person can.
    """

    path: Path
    what: str
    cure: str
    repair: Callable[[], str] | None = None

    @property
    def message(self) -> str:
        """The file and what is wrong with it, as a sentence."""
        return f"{self.path} {self.what}."


def damages(workspace: Workspace) -> Iterator[Damage]:
    """Everything that is damaged, what other things stand on first."""
    if not workspace.is_there:
        return
    yield from _rights(workspace)
    yield from _settings(workspace)
    yield from _warehouse(workspace)
    yield from _dagster(workspace)
    yield from _mlflow(workspace)
    yield from _statements(workspace)
    yield from _snapshots(workspace)
    yield from _models(workspace)
    yield from _bases(workspace)


def _rights(workspace: Workspace) -> Iterator[Damage]:
    for folder in (workspace.root, workspace.dagster_home, workspace.mlflow, workspace.snapshots):
        if folder.exists() and not folder.is_dir():
            yield Damage(folder, "is a file, and must be a folder", "Move it away; the folder is made again.")
        elif folder.is_dir() and not _writable(folder):
            yield Damage(folder, "cannot be written", "Get the right to write there, or free its disk.")
            return


def _writable(folder: Path) -> bool:
    """Whether a file can be made there, found out by making one: rights do not tell of a read-only disk."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _aside(path: Path) -> Path:
    """Move a damaged file, and SQLite's files beside it, out of the way; returns where it lies now."""
    kept = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    path.replace(kept)
    for end in ("-wal", "-shm", "-journal", ".wal"):
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.replace(kept.with_name(kept.name + end))
    return kept


def _settings(workspace: Workspace) -> Iterator[Damage]:
    path = workspace.settings_path

    def write_settings() -> str:
        kept = _aside(path)
        path.write_text(SETTINGS_TEXT, encoding="utf-8")
        return f"{path} was rewritten; what stood there is in {kept.name}."

    try:
        read_settings(path)
    except ThanoError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            yield Damage(path, "is not UTF-8", f"{_REPAIR}: the defaults are taken.", write_settings)


def _warehouse(workspace: Workspace) -> Iterator[Damage]:
    path = workspace.warehouse_path
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        head = file.read(_DUCKDB_PLACE + len(_DUCKDB))
    if head[_DUCKDB_PLACE:] != _DUCKDB:

        def begin_anew() -> str:
            kept = _aside(path)
            return f"{path} was moved to {kept.name}; tables are made again by their statements."

        cure = f"{_REPAIR}: tables are made again by their statements when they are read."
        yield Damage(path, "is no DuckDB database", cure, begin_anew)


# ---------------------------------------------------------------------------------------------- Dagster


def _dagster(workspace: Workspace) -> Iterator[Damage]:
    home = workspace.dagster_home
    settings = home / "dagster.yaml"
    if settings.is_file() and (wrong := _yaml_damage(settings)):

        def write_settings() -> str:
            kept = _aside(settings)
            settings.write_text(dagster_yaml(QueueSettings()), encoding="utf-8")
            return f"{settings} was rewritten; what stood there is in {kept.name}."

        yield Damage(settings, wrong, f"{_REPAIR}: the settings that Thano writes.", write_settings)
    lost = {
        home / "history" / "runs.db": "SHOW RUNS starts over",
        home / "schedules" / "schedules.db": "the times at which schedules ran are forgotten",
    }
    for path, what in lost.items():
        if wrong := sqlite_damage(path):
            yield Damage(path, wrong, f"{_REPAIR}: {what}, nothing else is lost.", _begin_anew(path, home))
    index = home / "history" / "runs" / "index.db"
    if wrong := sqlite_damage(index):
        cure = f"{_REPAIR}: it is made again from the runs beside it."
        yield Damage(index, wrong, cure, lambda: _index_again(index, home))


def _begin_anew(path: Path, home: Path) -> Callable[[], str]:
    def repair() -> str:
        kept = _aside(path)
        (home / ".ready").unlink(missing_ok=True)
        return f"{path} was moved to {kept.name}; Dagster makes a new one."

    return repair


def _index_again(index: Path, home: Path) -> str:
    from thano_assets.orchestration.dagster_storage import index_runs

    kept = _aside(index)
    (home / ".ready").unlink(missing_ok=True)
    events = index_runs(home)
    return f"{index} was made again with {events:,} events of the runs; the damaged one is {kept.name}."


def _yaml_damage(path: Path) -> str | None:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"is no YAML ({str(error).splitlines()[0]})"
    if found is None:
        return None
    if not isinstance(found, dict):
        return "holds no settings"
    from dagster._core.instance.config import dagster_instance_config_schema

    unknown = sorted(set(found) - set(dagster_instance_config_schema()))
    return f"has a setting that Dagster does not know, {unknown[0]}" if unknown else None


# ----------------------------------------------------------------------------------------------- MLflow


def _mlflow(workspace: Workspace) -> Iterator[Damage]:
    database = workspace.mlflow / "mlflow.db"
    backup = backup_of(workspace)
    wrong = sqlite_damage(database)
    if database.is_file() and database.stat().st_size == 0:
        wrong = "is empty"
    elif not database.exists() and backup.is_file():
        wrong = "is missing"
    if wrong is None:
        return

    def restore() -> str:
        kept = _aside(database) if database.exists() else None
        shutil.copy2(backup, database)
        rest = f"; the damaged one is {kept.name}" if kept else ""
        return f"{database} was restored from {backup.name}, as it was after the last model{rest}."

    if backup.is_file() and sqlite_damage(backup) is None:
        yield Damage(database, wrong, f"{_REPAIR}: the copy from after the last model is taken.", restore)
    else:
        cure = (
            f"Move it away, and build the models again; their files stay in {workspace.mlflow / 'artifacts'}."
        )
        yield Damage(database, wrong, cure)


def _models(workspace: Workspace) -> Iterator[Damage]:
    """Registered versions whose files are not whole."""
    registry = registry_of(workspace)
    if not registry.is_local or sqlite_damage(registry.database) or not registry.database.is_file():
        return
    for name in registry.models():
        versions = registry.versions(name)
        broken = {
            version.version: wrong
            for version in versions
            if (wrong := version_damage(version) or _changed_weights(version))
        }
        for version in versions:
            if version.version not in broken:
                continue
            whole = [one for one in versions if one.version not in broken]
            place, what = broken[version.version]
            what = f"{what}, and is of {name} version {version.version}"
            champion = CHAMPION in version.aliases
            if champion and whole:
                newest = whole[-1].version

                def promote(name: str = name, newest: int = newest) -> str:
                    registry.promote(name, newest)
                    return f"{name} version {newest} answers now."

                yield Damage(place, what, f"{_REPAIR}: version {newest} answers then.", promote)
            elif not whole:
                yield Damage(place, what, f"DELETE MODEL {name} forgets it; BUILD MODEL trains it again.")
            else:
                cure = (
                    f"DELETE MODEL {name} VERSION {version.version} forgets it; BUILD MODEL trains it again."
                )
                yield Damage(place, what, cure)


def version_damage(version: ModelVersion) -> tuple[Path, str] | None:
    """The first file of a version that is missing or broken, and what is wrong with it."""
    labels = version.path.parent / "labels.json"
    if labels.is_file() and not is_json(labels):
        return labels, "is no JSON"
    return folder_damage(version.path, weights=not version.task)


def _changed_weights(version: ModelVersion) -> tuple[Path, str] | None:
    """The weights of a version that are whole and not those that were registered; reads them to the end."""
    uploaded = version.tags.get("thano.statement", "").upper().startswith("UPLOAD")  # has another digest
    known = version.data_version
    if version.task or uploaded or not known or weights_digest(version.path) == known:
        return None
    return version.path / "model.safetensors", "holds other weights than were registered"


# ------------------------------------------------------------------------------- statements, snapshots, bases


def _statements(workspace: Workspace) -> Iterator[Damage]:
    for kind in EntryKind:
        folder = workspace.statements / kind.value
        for path in sorted(folder.glob("*.sql")) if folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            cure = "Put the statement right, or delete the file and give the statement again."
            try:
                found = [entry_of(statement) for statement in parse(path.read_text(encoding="utf-8"))]
            except UnicodeDecodeError:
                yield Damage(path, "is not UTF-8", cure)
                continue
            except ThanoError as error:
                line = f", line {error.line}" if error.line else ""
                yield Damage(path, f"cannot be read{line}: {error.message.rstrip('.')}", cure)
                continue
            except OSError as error:
                yield Damage(path, f"cannot be read: {error.strerror or error}", cure)
                continue
            if not any(entry is not None and entry.kind is kind for entry in found):
                yield Damage(path, "holds no statement of its kind", cure)


def _snapshots(workspace: Workspace) -> Iterator[Damage]:
    for path in sorted(workspace.snapshots.glob("*.parquet")) if workspace.snapshots.is_dir() else ():
        if not _is_parquet(path):
            yield Damage(path, "is no Parquet file", _ROWS_LOST, _putting_aside(path))
    for folder in (workspace.snapshots, workspace.snapshots / "training_sets"):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except (ValueError, OSError):
                yield Damage(path, "is no JSON", _AGAIN, _putting_aside(path))


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(-4, os.SEEK_END)
            return head == b"PAR1" == file.read(4)
    except OSError:
        return False


def _putting_aside(path: Path) -> Callable[[], str]:
    def repair() -> str:
        kept = _aside(path)
        return f"{path} was moved to {kept.name}."

    return repair


def _bases(workspace: Workspace) -> Iterator[Damage]:
    """Weights that were unpacked from a Python package: they can be had again."""
    packages = workspace.models_cache / "packages"
    for weights in sorted(packages.rglob("model.safetensors")) if packages.is_dir() else ():
        folder = weights.parent
        wrong = safetensors_damage(weights)
        place = weights
        try:
            json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (ValueError, OSError):
            place, wrong = folder / "config.json", "is missing or no JSON"
        if wrong:

            def remove(folder: Path = folder) -> str:
                shutil.rmtree(folder)
                return f"{folder} was removed; the weights are unpacked again when needed."

            yield Damage(place, wrong, f"{_REPAIR}: the weights are unpacked again.", remove)
