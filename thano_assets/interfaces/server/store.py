"""What the server remembers in ``server/server.db``: the log of queries, and query templates."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thano_assets.errors import NameExists, UnknownTemplate, did_you_mean

#: Queries that are remembered; older ones are forgotten.
_LOGGED = 10_000
_TABLES = """
CREATE TABLE IF NOT EXISTS query_log (
    id INTEGER PRIMARY KEY, query_id TEXT NOT NULL, statement_type TEXT, start_time TEXT, end_time TEXT,
    query TEXT NOT NULL, referer TEXT NOT NULL, state TEXT, destination_table_name TEXT,
    destination_schema TEXT, error_result TEXT, created_at TEXT, total_records INTEGER NOT NULL,
    affected_records INTEGER
);
CREATE TABLE IF NOT EXISTS query_template (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, query TEXT NOT NULL, created_at TEXT,
    updated_at TEXT
);
"""
_ORDERS = {"recent": "updated_at DESC, id DESC", "name_asc": "name", "name_desc": "name DESC"}


def now() -> str:
    """The time, as ISO text in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Template:
    """A query with places for values, kept under a name."""

    id: int
    name: str
    query: str
    created_at: str
    updated_at: str


class Store:
    """The server's memory in a folder; several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "server.db"
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_TABLES)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            with connection:
                yield connection

    def _page(
        self, table: str, column: str, order: str, search: str | None, offset: int, limit: int
    ) -> tuple[list[sqlite3.Row], int]:
        """Some rows of those whose ``column`` holds ``search``, and how many there are in all."""
        like = f"%{_escaped(search or '')}%"
        where = f"FROM {table} WHERE {column} LIKE ? ESCAPE '\\'"
        with self._open() as connection:
            total = int(connection.execute(f"SELECT count(*) {where}", [like]).fetchone()[0])
            ordered = f"SELECT * {where} ORDER BY {order} LIMIT ? OFFSET ?"
            return connection.execute(ordered, [like, limit, offset]).fetchall(), total

    # -- the log of queries ----------------------------------------------------------------------

    def log(self, entry: dict[str, Any]) -> None:
        """Remember a query that was answered."""
        entry = {"query_id": uuid.uuid4().hex, "created_at": now(), **entry}
        names = ", ".join(entry)
        marks = ", ".join(f":{name}" for name in entry)
        with self._open() as connection:
            connection.execute(f"INSERT INTO query_log ({names}) VALUES ({marks})", entry)
            connection.execute(
                "DELETE FROM query_log WHERE id <= (SELECT max(id) FROM query_log) - ?", [_LOGGED]
            )

    def logged(self, search: str | None, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Queries whose text holds ``search``, newest first, and how many there are in all."""
        rows, total = self._page("query_log", "query", "id DESC", search, offset, limit)
        return [{name: row[name] for name in row.keys() if name != "id"} for row in rows], total  # noqa: SIM118

    # -- query templates -------------------------------------------------------------------------

    def templates(
        self, search: str | None, order: str, offset: int, limit: int
    ) -> tuple[list[Template], int]:
        """Templates whose name holds ``search``, and how many there are in all."""
        rows, total = self._page("query_template", "name", _ORDERS[order], search, offset, limit)
        return [Template(**row) for row in rows], total

    def template(self, name: str | None = None, number: int | None = None) -> Template:
        """A template by its name or number.

        Raises:
            UnknownTemplate: there is none.
        """
        column, value = ("id", number) if name is None else ("name", name)
        with self._open() as connection:
            row = connection.execute(f"SELECT * FROM query_template WHERE {column} = ?", [value]).fetchone()
            known = [each[0] for each in connection.execute("SELECT name FROM query_template").fetchall()]
        if row is None:
            raise UnknownTemplate(
                f"There is no query template {value}.",
                hint=did_you_mean(name, known, "query templates") if name and known else None,
            )
        return Template(**row)

    def add_template(self, name: str, query: str) -> Template:
        """Keep a template.

        Raises:
            NameExists: the name is taken.
        """
        with self._open() as connection:
            try:
                connection.execute(
                    "INSERT INTO query_template (name, query, created_at, updated_at) VALUES (?, ?, ?, ?)",
                    [name, query, now(), now()],
                )
            except sqlite3.IntegrityError as error:
                raise _taken(name) from error
        return self.template(name)

    def change_template(self, name: str, new_name: str | None, query: str | None) -> Template:
        """Give a template another name, another query, or both.

        Raises:
            UnknownTemplate, NameExists: there is none; the new name is taken.
        """
        known = self.template(name)
        wanted = new_name or known.name
        with self._open() as connection:
            try:
                connection.execute(
                    "UPDATE query_template SET name = ?, query = ?, updated_at = ? WHERE id = ?",
                    [wanted, known.query if query is None else query, now(), known.id],
                )
            except sqlite3.IntegrityError as error:
                raise _taken(wanted) from error
        return self.template(wanted)

    def drop_template(self, name: str) -> None:
        """Forget a template.

        Raises:
            UnknownTemplate: there is none.
        """
        known = self.template(name)
        with self._open() as connection:
            connection.execute("DELETE FROM query_template WHERE id = ?", [known.id])


def _taken(name: str) -> NameExists:
    return NameExists(
        f"There is a query template {name} already.", hint="Change it with PUT, or take another."
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
