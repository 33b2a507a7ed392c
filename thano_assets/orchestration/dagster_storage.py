"""Dagster's SQLite storage for a process that runs statements: the same files, opened once.

Dagster opens and closes a connection for every event, and makes the database of each run by walking through
all of its migrations: two thirds of what a small run costs. Here connections stay open between events, and a
run's database is a copy of an empty one. What lies on disk is what Dagster's own class writes and reads,
so the web server, the daemon and the processes that they launch go on using that.

Like :mod:`.dagster_compat` it builds on names of Dagster that are not public.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event

_BUSY_SECONDS = 30
#: Databases of runs that stay open, besides the index of all runs.
_OPEN_RUNS = 2


def with_open_connections(ref: InstanceRef) -> InstanceRef:
    """``ref`` with the storage of this module where it has Dagster's SQLite storage; any other stays."""
    data = ref.storage_data
    if data is None or data.class_name != DagsterSqliteStorage.__name__:
        return ref
    ours = ConfigurableClassData(__name__, StatementStorage.__name__, data.config_yaml)
    return ref._replace(storage_data=ours)


class StatementStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with connections that stay open until :meth:`dispose`."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        events = self._event_log_storage
        self._event_log_storage = _EventLog(events._base_dir, events.inst_data)
        self._run_storage = _Runs(self._run_storage._conn_string, self._run_storage.inst_data)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """As Dagster makes configured classes."""
        return cls.from_local(inst_data=inst_data, **config_value)


class _EventLog(SqliteEventLogStorage):
    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            with self._engine(shard).connect() as connection, connection.begin():
                yield connection
            if shard != INDEX_SHARD_NAME:
                # What was written lies in the log beside the database; the web server watches the database.
                with suppress(OSError):
                    os.utime(self.path_for_shard(shard))

    def _engine(self, shard: str) -> Engine:
        if shard in self._engines:
            self._engines.move_to_end(shard)
            return self._engines[shard]
        engine = _engine(self.conn_string_for_shard(shard))
        if shard not in self._initialized_dbs:
            path = Path(self.path_for_shard(shard))
            if shard == INDEX_SHARD_NAME or not _copy_of_empty(path):
                self._initdb(engine)
            self._initialized_dbs.add(shard)
        self._engines[shard] = engine
        runs = [name for name in self._engines if name != INDEX_SHARD_NAME]
        for name in runs[:-_OPEN_RUNS]:
            self._engines.pop(name).dispose()
        return engine

    def wipe(self) -> None:
        self._close()
        super().wipe()

    def dispose(self) -> None:
        self._close()
        super().dispose()

    def _close(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


class _Runs(SqliteRunStorage):
    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(conn_string, inst_data)
        self._kept_engine = _engine(conn_string)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._kept_engine.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        self._kept_engine.dispose()
        super().dispose()


def _engine(address: str) -> Engine:
    engine = create_engine(address, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _: object) -> None:
        # With the write-ahead log a kill loses nothing so; a power cut may lose the last events of a run.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


_making = threading.Lock()


def _copy_of_empty(path: Path) -> bool:
    """Make ``path`` an empty database of a run's events, whole, unless it is there; whether it was made."""
    if path.exists():
        return False
    with _making:
        content = _empty_run()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        with suppress(OSError):  # another process was faster, or a file system without hard links
            path.hardlink_to(temporary)
            return True
        return False
    finally:
        Path(temporary).unlink(missing_ok=True)


@cache
def _empty_run() -> bytes:
    """The bytes of an empty database of a run's events, made by Dagster itself."""
    with tempfile.TemporaryDirectory(prefix="thano-events-") as folder:
        storage = SqliteEventLogStorage(folder)
        with storage.run_connection("empty"):
            pass
        path = Path(storage.path_for_shard("empty"))
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return path.read_bytes()


def index_runs(home: Path) -> int:
    """Write the index of a Dagster home again from the event logs of its runs; returns the events indexed.

    Dagster keeps the events of each run in a file of its own and mirrors in ``index.db`` those of assets and
    checks, and those that end a run (:meth:`SqliteEventLogStorage.store_event`). The index must not be there.
    """
    from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
    from dagster._core.events.log import EventLogEntry
    from dagster._core.storage.event_log.sql_event_log import db_result
    from dagster._serdes import deserialize_value

    runs = home / "history" / "runs"
    entries: list[EventLogEntry] = []
    for path in runs.glob("*.db"):
        if path.stem == INDEX_SHARD_NAME:
            continue
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as log:
            bodies = log.execute("SELECT event FROM event_logs").fetchall()
            entries += [deserialize_value(body, EventLogEntry) for (body,) in bodies]
    entries.sort(key=lambda entry: entry.timestamp)
    storage = SqliteEventLogStorage(str(runs))
    indexed = 0
    try:
        for entry in entries:
            if not entry.is_dagster_event:
                continue
            kind, insert = entry.dagster_event_type, storage.prepare_insert_event(entry)
            if kind in ASSET_EVENTS:
                with storage.index_transaction() as connection, db_result(connection, insert) as result:
                    number = result.inserted_primary_key[0]
                    storage._store_asset_event_tags(connection, [entry], [number])
                    storage._store_asset_event(connection, entry, number)
            elif kind in ASSET_CHECK_EVENTS:
                with storage.index_connection() as connection, db_result(connection, insert) as result:
                    number = result.inserted_primary_key[0]
                storage.store_asset_check_event(entry, number)
            elif kind in EVENT_TYPE_TO_PIPELINE_RUN_STATUS:
                with storage.index_connection() as connection:
                    connection.execute(insert)
            else:
                continue
            indexed += 1
    finally:
        storage.dispose()
    return indexed
