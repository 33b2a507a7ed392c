"""The registry's last good copy, and whether an SQLite file is whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workspace import Workspace

_SQLITE = b"SQLite format 3\0"


def sqlite_damage(path: Path) -> str | None:
    """What is wrong with a SQLite file; ``None`` where it is sound, or not there."""
    if not path.is_file():
        return None if not path.exists() else "is a folder, and must be a file"
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
        if not head:
            return None  # SQLite makes a database of it
        if head != _SQLITE:
            return "is no SQLite database"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchall()
    except (sqlite3.DatabaseError, OSError) as error:
        if "readonly" in str(error) or "unable to open" in str(error):
            return None  # a disk that cannot be written is told by itself
        return f"is damaged ({error})"
    return None if found == [("ok",)] else f"is damaged ({found[0][0].splitlines()[0]})"


def backup_of(workspace: Workspace) -> Path:
    """Where a copy of MLflow's database is kept, made whenever a model's versions changed."""
    return workspace.mlflow / "mlflow.db.bak"


def back_up(workspace: Workspace) -> None:
    """Keep a copy of MLflow's database while it is sound; without one where it cannot be written."""
    database = workspace.mlflow / "mlflow.db"
    if sqlite_damage(database):
        return
    target = backup_of(workspace)
    temporary = target.with_name(f".{target.name}.new")
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as source,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            source.backup(copy)
        temporary.replace(target)
    except (sqlite3.Error, OSError):
        temporary.unlink(missing_ok=True)
