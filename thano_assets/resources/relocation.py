"""A workspace that was moved or copied: MLflow's records are made to name the folder in which it lies now.

MLflow keeps absolute locations of artifacts. Where they still named another folder, a training would be
written there, into the original of a copy for one. So the first opening at a new place rewrites them, in one
transaction. Other ways were tried: ``mlflow-artifacts:/`` needs a server to load a model, and a relative
location is one of the process's folder.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from ..progress import current

if TYPE_CHECKING:
    from .workspace import Workspace

#: Columns of MLflow's database that name a folder, with a condition where only some rows do.
_COLUMNS = (
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("logged_models", "artifact_location", ""),
    ("tags", "value", "AND key = 'thano.workspace'"),
    ("trace_tags", "value", "AND key = 'mlflow.artifactLocation'"),
)
#: Columns of texts that name it somewhere.
_TEXTS = (
    ("datasets", "dataset_source", ""),
    ("registered_models", "description", ""),
    ("model_versions", "description", ""),
    ("tags", "value", "WHERE key = 'mlflow.note.content'"),
)
_ARTIFACTS = "/mlflow/artifacts"


def relocate(workspace: Workspace) -> str | None:
    """Make MLflow's records name the workspace's folder; returns the folder that they named, if another.

    Nothing is done while a training goes on, or where the database cannot be written. Artifacts that lie only
    in the other folder, because an earlier version wrote them there, are copied from it.
    """
    database = workspace.mlflow / "mlflow.db"
    if not database.is_file():
        return None
    try:
        if _recorded_root(database) in (None, workspace.root) or _training(workspace):
            return None
        with workspace.lock("mlflow"):
            old = _recorded_root(database)
            if old is None or old == workspace.root:
                return None
            changed = _rewrite(database, *_without_common_end(old, workspace.root))
    except (sqlite3.Error, OSError):
        return None  # read-only, or no database of MLflow's: whoever uses it says so
    if changed:
        current().message(f"The workspace lay in {old} before: MLflow's records name {workspace.root} now.")
    return str(old)


def _recorded_root(database: Path) -> Path | None:
    """The folder of the workspace that the records name; ``None`` where they name none."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
        rows = connection.execute(
            "SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%' "
            "ORDER BY experiment_id"
        ).fetchall()
    for (location,) in rows:
        path = unquote(urlparse(location).path)
        root, found, _ = path.rpartition(_ARTIFACTS)
        if found and root:
            return Path(root)
    return None


def _training(workspace: Workspace) -> bool:
    """Whether a training goes on: with one folder under two paths, each would take the other for moved."""
    from filelock import FileLock, Timeout

    for lock in workspace.locks.glob("run-*.lock"):
        try:
            with FileLock(lock, timeout=0, thread_local=False):
                continue
        except Timeout:
            return True
    return False


def _without_common_end(old: Path, new: Path) -> tuple[Path, Path]:
    """Both folders without ``environments/NAME`` where both are that: production moved with it."""
    if old.parts[-2:] == new.parts[-2:] and old.parts[-2:-1] == ("environments",):
        return old.parents[1], new.parents[1]
    return old, new


def _rewrite(database: Path, old: Path, new: Path) -> bool:
    """Put ``new`` in place of ``old`` at the beginning of each location; whether a run or model had one."""
    changed = False
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tables = {
            row[0]: {column[1] for column in connection.execute(f"PRAGMA table_info({row[0]})")}
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if re.fullmatch(r"\w+", row[0])
        }
        for table, column, where in _COLUMNS:
            if column not in tables.get(table, ()):
                continue
            for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
                count = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE ({column} = ? OR substr({column}, 1, ?) = ?) {where}",
                    (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
                ).rowcount
                changed |= bool(count) and table != "experiments"
        for table, column, where in _TEXTS:
            if column in tables.get(table, ()):
                connection.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?) {where}", (f"{old}/", f"{new}/")
                )
        _fetch(connection, tables, old, new)
        connection.execute("COMMIT")
    return changed


def _fetch(connection: sqlite3.Connection, tables: dict[str, set[str]], old: Path, new: Path) -> None:
    """Copy artifacts that the records name and only the old folder has."""
    if "storage_location" not in tables.get("model_versions", ()):
        return
    for (location,) in connection.execute("SELECT storage_location FROM model_versions").fetchall():
        place = Path(unquote(urlparse(location or "").path))
        if not place.is_relative_to(new) or place.exists():
            continue
        there = old / place.relative_to(new)
        if there.is_dir():
            beside = place.with_name(f".{place.name}.part")
            with suppress(FileNotFoundError):
                shutil.rmtree(beside)
            shutil.copytree(there, beside)
            beside.replace(place)
