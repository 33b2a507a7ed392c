"""The warehouse: one DuckDB file, open for moments, shared by any number of processes and threads.

DuckDB lets either one process write a file or several read it, and fails at once when they meet. So
every opening here takes a lock of the kernel's on a file beside the database first: shared to read,
exclusive to write. The kernel frees it the instant its holder dies, so nothing is ever left locked.
Measured and compared in ``docs/decisions/duckdb.md``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from ..errors import BorrowedAsset, UnknownTable, WarehouseBusy, WorkspaceError, did_you_mean
from ..progress import current
from ..stopping import permit
from ..system import no_space
from . import foreign_writes
from .locks import HAS_KERNEL_LOCKS, lock_beside

if TYPE_CHECKING:
    from .workspace import Workspace

#: The name under which connections of an environment reach production's tables.
PRODUCTION = "production"

_HEADER = 4096  # bytes of each of the three headers of a DuckDB file
_FOREIGN_PATIENCE = 15.0  # seconds until a program that knows nothing of our lock counts as here to stay

_IDENTIFIER = re.compile(r'\s*(?:"(?:[^"]|"")+"|[^\W\d]\w*)\s*')


class Column(NamedTuple):
    """A column's name and DuckDB type, such as ``BIGINT``."""

    name: str
    type: str


@dataclass(frozen=True)
class TableInfo:
    """A table of the warehouse with its exact number of rows."""

    name: str
    rows: int
    columns: list[Column]


def quote(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """``text`` as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def as_source(relation: str) -> str:
    """What may stand after FROM for a query, or for a table's name as it stands in SQL."""
    return relation if _IDENTIFIER.fullmatch(relation) else f"({relation})"


@dataclass
class _Held:
    """What the present thread has open: its connection, whether it may write, and what it also reads."""

    connection: duckdb.DuckDBPyConnection
    writes: bool
    borrows: Path | None


_held = threading.local()  # .by_path: dict[Path, _Held]
_opening = threading.Lock()  # settings of a database are made once by whichever thread opens it first


class Warehouse:
    """The DuckDB file at ``path``; holds nothing open between uses.

    Args:
        path: the database file; it is made by the first write.
        allowed_directories: folders whose files SQL may read and write; nothing else is reachable from SQL.
        on_wait: told in a sentence for whom a lock is waited; by default the current progress receiver.
        memory_limit: DuckDB's, such as ``'4GB'``.
        threads: DuckDB's.
        portable_lock: use the lock for systems without ``fcntl``; by default only there.
        borrows: another database file, whose tables are read where this one has none of their name. It is
            never written, and locked after this one: who works on that file alone never waits for both.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        allowed_directories: Iterable[str | Path] = (),
        on_wait: Callable[[str], None] | None = None,
        memory_limit: str | None = None,
        threads: int | None = None,
        portable_lock: bool = not HAS_KERNEL_LOCKS,
        borrows: str | Path | None = None,
    ) -> None:
        self.path = Path(path).resolve()
        self.allowed_directories = tuple(str(Path(one).resolve()) for one in allowed_directories)
        self.memory_limit, self.threads = memory_limit, threads
        self.foreign_patience = _FOREIGN_PATIENCE
        self._on_wait = on_wait
        self._lock = lock_beside(self.path, portable_lock)
        self.borrows = Path(borrows).resolve() if borrows is not None else None
        self._borrowed_lock = lock_beside(self.borrows, portable_lock) if self.borrows else None

    def __repr__(self) -> str:
        return f"Warehouse({str(self.path)!r})"

    @classmethod
    def of(cls, workspace: Workspace, *, on_wait: Callable[[str], None] | None = None) -> Warehouse:
        """The warehouse of a workspace, with its settings; SQL reaches its data and its snapshots."""
        settings = workspace.settings.warehouse
        production = workspace.production
        snapshots = [place.snapshots for place in (workspace, production) if place is not None]
        return cls(
            workspace.warehouse_path,
            allowed_directories=(*workspace.readable_folders, *snapshots),
            borrows=production.warehouse_path if production is not None else None,
            on_wait=on_wait,
            memory_limit=settings.memory_limit,
            threads=settings.threads,
        )

    # ------------------------------------------------------------------------------------- connections

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that cannot change the database; any number may be open at once.

        Before the first write there is no file, and the connection shows an empty database. Inside the same
        thread's :meth:`write` it is that connection, so what was written is seen.

        Raises:
            WarehouseBusy: a program that does not take our lock holds the file.
        """
        with self._connection(writes=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The one connection that may change the database, in one transaction: all of it or nothing.

        What was done is committed when the block ends and undone when it raises or the process is killed.
        Inside the same thread's :meth:`write` the block joins that transaction.

        Raises:
            WarehouseBusy: a program that does not take our lock holds the file.
            WorkspaceError: the file cannot be made or written, or its disk is full.
            RuntimeError: the same thread is inside :meth:`read` (it would wait for itself).
        """
        with self._connection(writes=True) as connection:
            yield connection

    @contextmanager
    def _connection(self, writes: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        by_path: dict[Path, _Held] = _held.__dict__.setdefault("by_path", {})
        outer = by_path.get(self.path)
        if outer is not None:
            if writes and not outer.writes:
                raise RuntimeError("write() inside read() of the same thread would wait for itself")
            if outer.writes:
                yield outer.connection
                return
            with outer.connection.cursor() as cursor:
                self._prefer_own(cursor)
                yield cursor
            return
        lent = any(held.borrows == self.path for held in by_path.values())
        production = by_path.get(self.borrows) if self.borrows is not None else None
        if (writes and lent) or (production is not None and production.writes):
            raise RuntimeError(
                "production cannot be written while the same thread reads it in an environment"
            )

        on_wait = self._on_wait or current().message
        with ExitStack() as stack:
            try:
                if writes:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                if not lent:  # else the thread has it already: a second one could queue behind a writer
                    stack.enter_context(self._lock.hold(writes, on_wait))
                if self._borrowed_lock is not None and production is None and self._can_borrow():
                    stack.enter_context(self._borrowed_lock.hold(False, on_wait))
                if writes:
                    stack.push(self._given_back)  # when the connection is closed and the lock held
                connection = stack.enter_context(self._noted(writes, on_wait))
            except OSError as error:
                raise self._unusable(error.strerror or str(error)) from error
            by_path[self.path] = _Held(connection, writes, self.borrows)
            stack.callback(by_path.pop, self.path)
            try:
                with _transaction(connection) if writes else nullcontext():
                    yield connection
            except (duckdb.InterruptException, RuntimeError) as error:
                if interrupted(error):
                    raise KeyboardInterrupt from error
                raise
            except duckdb.Error as error:
                if no_space(error, self.path.parent):
                    raise self._unusable("there is no space left on its disk") from error
                raise

    def _given_back(self, kind: type[BaseException] | None, *_: object) -> None:
        """After a write that failed, cut off the end of the file that it had made the file grow by.

        DuckDB keeps such blocks for later writes, so a statement that fills the disk would leave it full.
        Blocks behind those that the database counts hold nothing, unless its log has yet to be taken in.
        """
        log = self.path.with_name(f"{self.path.name}.wal")
        with suppress(OSError, duckdb.Error):
            if kind is None or (log.exists() and log.stat().st_size):
                return
            with duckdb.connect(str(self.path), read_only=True) as connection:
                found = connection.execute("SELECT block_size, total_blocks FROM pragma_database_size()")
                block, blocks = found.fetchall()[0]
            wanted = 3 * _HEADER + int(block) * int(blocks)
            if wanted < self.path.stat().st_size:
                os.truncate(self.path, wanted)

    def _unusable(self, reason: str) -> WorkspaceError:
        if "not a valid DuckDB database" in reason:
            return WorkspaceError(
                f"The warehouse {self.path} is no DuckDB database.",
                hint="`thano doctor --repair` puts it aside; tables are made again by their statements.",
            )
        return WorkspaceError(
            f"The warehouse {self.path} cannot be used: {reason}.",
            hint="DROP TABLE, DELETE MODEL and `thano clean` free space, even on a full disk; `thano doctor` "
            "checks the workspace and its rights.",
        )

    @contextmanager
    def _noted(self, writes: bool, on_wait: Callable[[str], None]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open; what is written is noted as ours when it is closed, and our lock still held."""
        with self._open(writes, on_wait) as connection:
            mark = foreign_writes.mark(self.path)  # nobody else can write while it is open
            yield connection
        if writes:
            foreign_writes.note(self.path, mark)

    def _open(self, writes: bool, on_wait: Callable[[str], None]) -> duckdb.DuckDBPyConnection:
        if not writes and not self.path.exists():
            return self._configure(duckdb.connect(":memory:"))
        if writes and not self.path.exists():
            self._make()
        deadline = time.monotonic() + self.foreign_patience
        told = False
        while True:
            try:
                with _opening:
                    return self._configure(duckdb.connect(str(self.path), read_only=not writes))
            except (duckdb.IOException, duckdb.ConnectionException, _OtherSettings) as error:
                who = _foreign_holder(error)
                if who is None:
                    raise self._unusable(" ".join(str(error).split("\n")[0].split()).rstrip(".")) from error
                if time.monotonic() >= deadline:
                    raise WarehouseBusy(
                        f"{who[0].upper()}{who[1:]} has the warehouse {self.path.name} open.",
                        hint="Close it there and run the statement again.",
                    ) from error
            if not told:
                told = True
                on_wait(f"Waiting for the warehouse: {who} has it open.")
            time.sleep(random.uniform(0.05, 0.25))

    def _can_borrow(self) -> bool:
        return self.borrows is not None and self.borrows.parent.is_dir()

    def _attach_borrowed(self, connection: duckdb.DuckDBPyConnection, settled: bool) -> None:
        """Attach the borrowed database if it is there; ``settled``: the settings allow no more of it."""
        if self.borrows is None:
            return
        there = self._can_borrow() and self.borrows.is_file()
        attached = _has_production(connection)
        if there and not attached and settled:
            raise _OtherSettings("another connection of this process began before there was such a file")
        if there and not attached:
            connection.execute(f"ATTACH {literal(str(self.borrows))} AS {PRODUCTION} (READ_ONLY)")
        self._prefer_own(connection)

    def _prefer_own(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let names mean this database's tables first, then the borrowed ones; cursors do not inherit it."""
        if self.borrows is not None and _has_production(connection):
            own = connection.execute("SELECT current_database()").fetchall()[0][0]
            connection.execute(f"SET search_path = {literal(f'{own}.main,{PRODUCTION}.main')}")

    def _make(self) -> None:
        """Make the database file in one step, so that a kill cannot leave half of one."""
        temporary = self.path.with_name(f".{self.path.name}.new")  # one name: the lock is held
        temporary.unlink(missing_ok=True)
        duckdb.connect(str(temporary)).close()
        temporary.replace(self.path)

    def _configure(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        folders = [f"{folder}{os.sep}" for folder in self.allowed_directories]
        try:
            # All rows: a result that is not read to its end keeps the connection from answering again.
            [state] = connection.execute(
                "SELECT current_setting('lock_configuration'), current_setting('allowed_directories')"
            ).fetchall()
            if state[0]:  # another thread's connection made the settings; they are the whole database's
                if not set(folders) <= set(state[1]):
                    raise _OtherSettings("another connection of this process has other settings")
                self._attach_borrowed(connection, settled=True)
                return connection
            if self.memory_limit is not None:
                connection.execute(f"SET memory_limit = {literal(self.memory_limit)}")
            if self.threads is not None:
                connection.execute(f"SET threads = {int(self.threads)}")
            self._attach_borrowed(connection, settled=False)
            connection.execute(f"SET allowed_directories = [{', '.join(map(literal, folders))}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        except BaseException:
            connection.close()
            raise
        return connection

    # ------------------------------------------------------------------------------------------ tables

    def tables(self) -> list[TableInfo]:
        """All tables by name, borrowed ones among them, with exact row counts."""
        own = "SELECT lower(table_name) FROM duckdb_tables() WHERE database_name = current_database() "
        with self.read() as connection:
            rows = connection.execute(
                "SELECT table_name, column_name, data_type FROM duckdb_columns() AS c "
                f"WHERE database_name IN ({self._databases}) AND schema_name = 'main' AND NOT internal "
                "AND table_name IN (SELECT table_name FROM duckdb_tables() "
                "WHERE database_name = c.database_name AND NOT temporary) "
                f"AND (database_name = current_database() OR lower(table_name) NOT IN ({own})) "
                "ORDER BY table_name, column_index"
            ).fetchall()
            columns: dict[str, list[Column]] = {}
            for table, column, kind in rows:
                columns.setdefault(table, []).append(Column(column, kind))
            return [TableInfo(name, _count(connection, name), columns[name]) for name in columns]

    def describe(self, sql: str) -> list[Column]:
        """Names and types of a query's columns, without running it.

        Raises:
            duckdb.Error: DuckDB's complaint about the query, as it is.
        """
        with self.read() as connection:
            return describe(connection, sql)

    def exists(self, name: str) -> bool:
        """Whether there is a table of that name (in any case, as DuckDB has it), own or borrowed."""
        with self.read() as connection:
            return _exists(connection, name, self._databases)

    def has_own(self, name: str) -> bool:
        """Whether this database itself has a table of that name; a borrowed one does not count."""
        with self.read() as connection:
            return _exists(connection, name)

    def foreign_mark(self, table: str) -> str:
        """What stands for the writes of other programs to the file that ``table`` is in.

        Inside :meth:`read` or :meth:`write` it is of what is read there.
        """
        own = self.borrows is None or self.has_own(table)
        return foreign_writes.mark(self.path if own or self.borrows is None else self.borrows)

    @property
    def _databases(self) -> str:
        return f"current_database(), {literal(PRODUCTION)}" if self.borrows else "current_database()"

    def drop(self, name: str) -> None:
        """Drop a table.

        Raises:
            UnknownTable: there is none of that name.
            BorrowedAsset: it is not this database's own.
        """
        with self.write() as connection:
            if not _exists(connection, name):
                if _exists(connection, name, self._databases):
                    raise BorrowedAsset.of(f"table {name}")
                known = table_names(connection)
                raise UnknownTable(f"There is no table {name}.", hint=did_you_mean(name, known, "tables"))
            connection.execute(f"DROP TABLE {quote(name)}")

    @staticmethod
    def fingerprint(connection: duckdb.DuckDBPyConnection, relation: str) -> str:
        """Hash of the content of a table or query: see :func:`fingerprint`."""
        return fingerprint(connection, relation)


class _OtherSettings(Exception):  # noqa: N818 - a state to wait for, not an error that is told
    """The database is open in this process with other folders allowed."""


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
        permit()
    except BaseException:
        # An error may have ended the transaction already; the connection closes next in any case.
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def interrupted(error: BaseException) -> bool:
    """Whether ``error`` is how DuckDB tells that a person stopped its query."""
    return isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted"


def _foreign_holder(error: Exception) -> str | None:
    """Who has the file open without taking our lock, from DuckDB's message; ``None`` if it is not that."""
    text = str(error)
    if isinstance(error, _OtherSettings) or "different configuration" in text:
        return "another part of this process"
    if "Could not set lock" in text or "Conflicting lock" in text:
        holder = re.search(r"Conflicting lock is held in (.+?) \(PID (\d+)\)", text)
        if holder:
            return f"process {holder[2]} ({Path(holder[1]).name})"
        pid = re.search(r"PID (\d+)", text)
        return f"process {pid[1]}" if pid else "another program"
    return None


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    [[count]] = connection.execute(f"SELECT count(*) FROM {quote(name)}").fetchall()
    return int(count)


def _exists(connection: duckdb.DuckDBPyConnection, name: str, databases: str = "current_database()") -> bool:
    found = connection.execute(
        f"SELECT 1 FROM duckdb_tables() WHERE database_name IN ({databases}) AND schema_name = 'main' "
        "AND lower(table_name) = lower(?)",
        [name],
    )
    return bool(found.fetchall())


def _has_production(connection: duckdb.DuckDBPyConnection) -> bool:
    sql = f"SELECT 1 FROM duckdb_databases() WHERE database_name = {literal(PRODUCTION)}"
    return bool(connection.execute(sql).fetchall())


def table_names(
    connection: duckdb.DuckDBPyConnection, *, temporary: bool = True, database: str | None = None
) -> list[str]:
    """Names of the tables that a connection sees.

    Args:
        connection: To the warehouse.
        temporary: With those that only the connection sees.
        database: SQL for the name of the one database that counts.
    """
    conditions = ["true"] if temporary else ["NOT temporary"]
    if database is not None:
        conditions.append(f"database_name = {database} AND schema_name = 'main'")
    sql = f"SELECT table_name FROM duckdb_tables() WHERE {' AND '.join(conditions)}"
    return [row[0] for row in connection.execute(sql).fetchall()]


def whole_name(connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """SQL for a table that is no temporary one; an environment's own before production's."""
    found = connection.execute(
        "SELECT database_name, schema_name, table_name FROM duckdb_tables() "
        "WHERE NOT temporary AND lower(table_name) = lower(?) "
        "ORDER BY database_name <> current_database()",
        [name],
    ).fetchall()
    return ".".join(quote(part) for part in found[0]) if found else None


def describe(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Column]:
    """Names and types of the columns of a query (or of a table given by its quoted name)."""
    return [Column(row[0], row[1]) for row in connection.execute(f"DESCRIBE {sql}").fetchall()]


def fingerprint(connection: duckdb.DuckDBPyConnection, relation: str) -> str:
    """SHA-256 hex of a relation's column names, types and rows, whatever the order of the rows.

    Args:
        connection: from :meth:`Warehouse.read` or :meth:`Warehouse.write`.
        relation: a query, or a table's name as it stands in SQL (quoted where it needs be).

    The rows enter as their number and the sums of two 64-bit hashes of each row, computed by DuckDB as it
    scans: sums do not depend on order, and unlike an exclusive-or they count repeated rows. One of the two
    hashes the columns in reverse behind a salt, so that rows that collide in one differ in the other. It
    tells changes apart; it is not made to withstand someone who forges a table.
    """
    columns = describe(connection, relation)
    names = [quote(column.name) for column in columns]
    row = connection.execute(
        f"SELECT count(*), sum(hash({', '.join(names)})), sum(hash('thano', {', '.join(reversed(names))})) "
        f"FROM {as_source(relation)}"
    ).fetchall()[0]
    return hashlib.sha256(json.dumps([columns, _plain(row)], ensure_ascii=False).encode()).hexdigest()


def _plain(row: tuple[Any, ...] | None) -> list[int]:
    return [int(value or 0) for value in row or ()]
