"""Files that the network sends for tables, and the COPY that brings each in.

They lie under ``data/uploads/TABLE/``; those of an environment, whose data folder is production's, apart from
production's. A file is kept for as long as a statement reads it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.errors import NameExists
from thano_assets.interfaces.server.store import now
from thano_assets.resources.warehouse import TableInfo, literal, quote
from thano_assets.sql.statements import Copy

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace
    from thano_assets.session import Session

#: Writes after which what was written is put together in one file, so that a table stays one statement.
_PARTS = 20


class Uploads:
    """What was sent for the tables of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        environment = "" if workspace.production is None else f"_in_{workspace.root.name}"
        self._root = workspace.data / f"uploads{environment}"

    @contextmanager
    def file(self, session: Session, table: str, ending: str) -> Iterator[Path]:
        """A file for an upload; one at a time for each table. Where the block raises, what no statement reads
        is removed: its COPY may have been done by then.
        """
        with self._workspace.lock(f"upload-{table}"):
            path = self._root / table / f"{now()[:19].replace(':', '')}_{uuid.uuid4().hex[:8]}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield path
            except BaseException:
                self.remove_unread(session, table)
                raise

    def copy(
        self,
        session: Session,
        table: str,
        there: TableInfo | None,
        path: Path,
        if_exists: str,
        types: dict[str, str],
    ) -> str:
        """Bring an uploaded file in; the COPY that did.

        Args:
            session: Runs the statement.
            table: What the table is called.
            there: The table, where it exists.
            path: Of the file.
            if_exists: ``'fail'``, ``'append'`` or ``'replace'``.
            types: Of columns, by their names; of others they are found from the values.

        Raises:
            NameExists: the table exists, and ``if_exists`` is ``'fail'``.
        """
        if there is not None and if_exists == "fail":
            raise NameExists(f"There is a table {there.name} already.", hint="if_exists says what to do.")
        options = [f"if_exists = {literal(if_exists)}"] if there is not None else []
        if types:
            pairs = ", ".join(f"{literal(column)}: {literal(kind)}" for column, kind in types.items())
            options.append(f"columns = {{{pairs}}}")
        given = f" OPTIONS ({', '.join(options)})" if options else ""
        statement = f"COPY {quote(table)}{given} FROM {literal(self._place(path))}"
        session.execute(statement)
        if if_exists == "replace":
            self.remove_unread(session, table)
        elif len(list(path.parent.iterdir())) > _PARTS:
            self._put_together(session, table, path)
        return statement

    def remove_unread(self, session: Session, table: str = "*", seconds: float = 0.0) -> int:
        """Remove files of a table, or of all, that no statement reads; their number.

        Args:
            session: Knows the statements.
            table: Of which table.
            seconds: Leave younger files alone: they may be another server's, whose COPY is still to come.
        """
        statements = "\n".join(entry.text for entry in session.catalog.entries())
        count = 0
        for path in self._root.glob(f"{table}/*"):
            if time.time() - path.stat().st_mtime >= seconds and self._place(path) not in statements:
                path.unlink(missing_ok=True)
                count += 1
        for folder in self._root.glob(table):
            with suppress(OSError):
                folder.rmdir()
        return count

    def _put_together(self, session: Session, table: str, path: Path) -> None:
        """Make one file of what was written to a table, and one COPY; the rows, and so its version, stay.

        A table that has rows from elsewhere too is left as it is: it would lose where they came from.
        """
        import pyarrow.parquet as pq

        entry = session.catalog.relation(table)
        parts = [] if entry is None else [one for one in session.parse(entry.text) if isinstance(one, Copy)]
        own = f"{self._place(path.parent)}/"
        if not parts or not all((one.path or "").startswith(own) for one in parts):
            return
        whole = path.with_name(f"{path.stem}_whole.parquet")
        with session.warehouse.read() as connection:
            reader = connection.sql(f"SELECT * FROM {quote(table)}").to_arrow_reader(1 << 16)
            with pq.ParquetWriter(whole, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
        place = literal(self._place(whole))
        session.execute(f"COPY {quote(table)} OPTIONS (if_exists = 'replace') FROM {place}")
        self.remove_unread(session, table)

    def _place(self, path: Path) -> str:
        """A path as COPY has it."""
        return path.relative_to(self._workspace.data).as_posix()


def write_rows(path: Path, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Rows as lines of JSON, each with all of the columns ``names``."""
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps({name: row.get(name) for name in names}, ensure_ascii=False) + "\n")
