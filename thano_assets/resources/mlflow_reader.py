"""Reading MLflow's registry straight from its SQLite file.

Importing MLflow takes seconds; a look at who is champion takes a millisecond this way. Only the tables
of the model registry and of runs are read, read-only, and :func:`read` tells by an exception when the
file is not of the shape that is known here, so that the caller asks MLflow itself instead. A test holds
both answers against each other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BUSY_SECONDS = 30.0
#: Marks the runs that train a version again only to compare.
VERIFICATION_TAG = "thano.verification"
#: Figures that make a training's curve.
CURVE = (
    "epoch",
    "loss",
    "eval_loss",
    "eval_accuracy",
    "learning_rate",
    "rows_per_second",
    "generator_loss",
    "discriminator_loss",
    "tokens_per_second",
)

_DELETED = "Deleted_Internal"  # MLflow's mark on versions that were deleted one by one


class UnknownSchema(Exception):  # noqa: N818 - a reason to take the other way
    """The file is no MLflow database, or one of a version that is laid out differently."""


@dataclass
class VersionRow:
    """A registered version as MLflow keeps it."""

    name: str
    version: int
    run_id: str | None
    created_ms: int
    description: str | None
    location: str
    aliases: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


@dataclass
class RunRow:
    """A training's run: its id, status and start, and its curve as (figure, step, value, time in ms)."""

    run_id: str
    status: str
    started_ms: int
    curve: list[tuple[str, int, float, int]]

    def by_step(self) -> list[dict[str, float]]:
        """The curve with all figures of a step together; final figures, which have no step, are left out."""
        steps: dict[int, dict[str, float]] = {}
        for figure, step, value, time_ms in sorted(self.curve, key=lambda point: point[1]):
            if step > 0:
                found = steps.setdefault(step, {"step": step, "seconds": 0.0})
                found["seconds"] = max(found["seconds"], (time_ms - self.started_ms) / 1000)
                found[figure] = value
        return list(steps.values())


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection that waits for writers.

    Raises:
        UnknownSchema: the file cannot be read as SQLite.
    """
    try:
        connection = _open(path, "ro")
    except sqlite3.OperationalError:
        # A killed writer leaves a journal that only a connection with the right to write rolls back.
        try:
            connection = _open(path, "rw")
        except sqlite3.Error as error:
            raise UnknownSchema(str(error)) from error
    except sqlite3.DatabaseError as error:
        raise UnknownSchema(str(error)) from error
    with closing(connection):
        yield connection


def _open(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=_BUSY_SECONDS)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def read(path: Path, question: Callable[[sqlite3.Connection], Any]) -> Any:
    """Ask ``question`` of the database.

    Raises:
        UnknownSchema: the file does not have the tables that are asked for.
    """
    try:
        with connect(path) as connection:
            return question(connection)
    except sqlite3.Error as error:
        raise UnknownSchema(str(error)) from error


def models(connection: sqlite3.Connection) -> list[str]:
    """Names of all registered models."""
    return [row[0] for row in connection.execute("SELECT name FROM registered_models ORDER BY name")]


def experiment_of(connection: sqlite3.Connection, run_id: str) -> str | None:
    """The experiment that a run belongs to."""
    row = connection.execute("SELECT experiment_id FROM runs WHERE run_uuid = ?", [run_id]).fetchone()
    return str(row[0]) if row else None


def versions(
    connection: sqlite3.Connection, name: str, version: int | None = None, alias: str | None = None
) -> list[VersionRow]:
    """Versions of a model, oldest first: all, the one numbered ``version``, or the one called ``alias``."""
    sql = (
        "SELECT name, version, run_id, creation_time, description, coalesce(storage_location, source) "
        "FROM model_versions WHERE name = ? AND coalesce(current_stage, '') <> ?"
    )
    values: list[Any] = [name, _DELETED]
    if version is not None:
        sql += " AND version = ?"
        values.append(version)
    if alias is not None:
        sql += " AND version = (SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?)"
        values += [name, alias]
    found = [VersionRow(*row) for row in connection.execute(sql + " ORDER BY version", values)]
    for one in found:
        key = [name, one.version]
        one.aliases = _column(
            connection,
            "SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ? ORDER BY alias",
            key,
        )
        one.tags = dict(
            connection.execute(
                "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", key
            )
        )
        one.metrics = {
            metric: float("nan") if is_nan else value
            for metric, value, is_nan in connection.execute(
                "SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", [one.run_id]
            )
        }
        one.params = dict(
            connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", [one.run_id])
        )
    return found


def newest_training(connection: sqlite3.Connection, name: str) -> RunRow | None:
    """The newest run that trained the model ``name``, with its curve; ``None`` if there is none."""
    row = connection.execute(
        "SELECT r.run_uuid, r.status, r.start_time FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
        "WHERE t.key = 'thano.model' AND t.value = ? AND r.lifecycle_stage = 'active' AND NOT EXISTS "
        "(SELECT 1 FROM tags v WHERE v.run_uuid = r.run_uuid AND v.key = ?) "
        "ORDER BY r.start_time DESC LIMIT 1",
        [name, VERIFICATION_TAG],
    ).fetchone()
    if row is None:
        return None
    marks = ", ".join("?" * len(CURVE))
    points = connection.execute(
        f"SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = ? AND key IN ({marks}) "
        "AND NOT is_nan ORDER BY step, timestamp",
        [row[0], *CURVE],
    ).fetchall()
    return RunRow(row[0], row[1], row[2], points)


def running(connection: sqlite3.Connection) -> list[str]:
    """Ids of runs that have not ended."""
    return _column(connection, "SELECT run_uuid FROM runs WHERE status = 'RUNNING'", [])


def _column(connection: sqlite3.Connection, sql: str, values: list[Any]) -> list[Any]:
    return [row[0] for row in connection.execute(sql, values)]
