"""Tables and training sets tried out: what they would hold, without anything being changed.

A table is made as a temporary one under its own name on a reading connection. Queries on that
connection then see it first, so whatever stands on it can be tried out too.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from thano_assets.assets.models.features import label_type_kept, training_columns, training_rows
from thano_assets.assets.models.training_sets import TrainingSet, training_set_of
from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables.copies import load
from thano_assets.assets.tables.queries import prepare, refuse_twice
from thano_assets.errors import ThanoError
from thano_assets.graph import Node
from thano_assets.graph.build import Key
from thano_assets.planning.reasons import RowChange
from thano_assets.resources.warehouse import describe, quote, whole_name
from thano_assets.sql.statements import TrainModel

if TYPE_CHECKING:
    import duckdb


class DryRun:
    """Temporary tables on one reading connection.

    Args:
        runtime: The workspace's resources.
        connection: Of the warehouse; :meth:`close` takes away what was made on it.

    Attributes:
        counts: Rows of what was tried out.
    """

    def __init__(self, runtime: Runtime, connection: duckdb.DuckDBPyConnection) -> None:
        self._runtime = runtime
        self.connection = connection
        self.counts: dict[Key, int] = {}
        self._changes: dict[Key, RowChange | None] = {}
        self._made: set[str] = set()

    def close(self) -> None:
        """Drop the temporary tables."""
        for name in self._made:
            self.connection.execute(f"DROP TABLE IF EXISTS temp.{quote(name)}")
        self._made.clear()

    def undo(self, key: Key) -> None:
        """Let ``key``, a table perhaps, be again what it is in the warehouse."""
        self._changes.pop(key, None)
        if key[1] in self._made:
            self._made.discard(key[1])
            self.connection.execute(f"DROP TABLE IF EXISTS temp.{quote(key[1])}")

    def has(self, name: str) -> bool:
        """Whether the table ``name`` was tried out."""
        return name in self._made

    def table(self, node: Node) -> str:
        """Try out a table; returns its data version.

        Raises:
            ThanoError: its files cannot be read.
            duckdb.Error: its query does not work.
        """
        load(
            lambda: nullcontext(self.connection),
            node.name,
            node.entry.statements,
            self._runtime,
            lambda connection: None,
            temporary=True,
        )
        self._made.add(node.name)
        self._changes.pop(node.key, None)
        shadow = f"temp.{quote(node.name)}"
        self.counts[node.key] = self.count(shadow)
        return self._runtime.warehouse.fingerprint(self.connection, f"SELECT * FROM {shadow}")

    def training_set(self, node: Node, before: str | None) -> str:
        """Try out a training set; returns its data version.

        Args:
            node: The training set.
            before: Identity of the one that its model was trained on, to compare with.

        Raises:
            ThanoError: its columns are not there.
            duckdb.Error: its query does not work.
        """
        statement = node.statement(TrainModel)
        connection = self.connection
        sql = f"({prepare(statement.query, connection, self._runtime)})"
        columns = describe(connection, sql)
        refuse_twice(columns, statement.query)
        reading, label = training_columns(statement, columns)
        rows = training_rows(sql, reading, label, label_type_kept(statement))
        self.counts[node.key] = self.count(f"({rows})")
        self._changes[node.key] = self._training_change(node.name, before, rows)
        fingerprint = self._runtime.warehouse.fingerprint(connection, rows)
        return training_set_of(fingerprint, 0, reading, label, []).identity

    def _training_change(self, model: str, identity: str | None, rows: str) -> RowChange | None:
        workspace = self._runtime.workspace
        try:
            training_set = TrainingSet.load(workspace, model, identity)
        except ThanoError:
            return None
        snapshot = training_set.snapshot(workspace)
        return self._difference(training_set.rows_sql(snapshot), rows) if snapshot.is_file() else None

    def change(self, key: Key) -> RowChange | None:
        """How the rows of ``key`` will differ; ``None`` where it was not tried out, or is new."""
        if key not in self._changes:
            self._changes[key] = self._table_change(key[1])
        return self._changes[key]

    def _table_change(self, name: str) -> RowChange | None:
        if name not in self._made:
            return None
        before = whole_name(self.connection, name)
        if before is None:
            return None
        return self._difference(f"SELECT * FROM {before}", f"SELECT * FROM temp.{quote(name)}")

    def _difference(self, old: str, new: str) -> RowChange:
        """Rows that came and rows that went, counted as in two bags."""
        before, after = describe(self.connection, f"({old})"), describe(self.connection, f"({new})")
        if set(before) != set(after):
            same = {column.name for column in set(before) & set(after)}
            names = (column.name for column in (*before, *after) if column.name not in same)
            return RowChange(columns=tuple(dict.fromkeys(names)))
        columns = ", ".join(quote(column.name) for column in before)
        row = self.connection.execute(
            "SELECT sum(greatest(n, 0)), sum(greatest(-n, 0)) FROM (SELECT sum(n) AS n FROM ("
            f"SELECT hash({columns}) AS h, 1 AS n FROM ({new}) "
            f"UNION ALL SELECT hash({columns}), -1 FROM ({old})) GROUP BY h)"
        ).fetchall()[0]
        return RowChange(added=int(row[0] or 0), removed=int(row[1] or 0))

    def count(self, relation: str) -> int:
        """Rows of a table or of a query in parentheses."""
        return int(self.connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])
