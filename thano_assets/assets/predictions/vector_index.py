"""SEARCH TEXT where the rows of its query are rows of one table: vectors from a file, rows by their number.

The vectors of a table lie in a file beside the model's answers, named by the table's data version and by what
other programs wrote to the database (:mod:`~thano_assets.resources.foreign_writes`), and are compared there;
DuckDB then reads only the rows that were found. What it reads is held against what the vectors were made
from, in the transaction that makes the result: where they differ the file is dropped, and the search goes
the long way.
"""

from __future__ import annotations

import copy
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.predictions.prediction_cache import MOST_VECTOR_BYTES, PredictionCache
from thano_assets.assets.runtime import Runtime
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.warehouse import describe, interrupted, quote
from thano_assets.sql.rowwise import ROW, Rowwise, rowwise

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

    from thano_assets.assets.tables.queries import Stage
    from thano_assets.learning.nearest import Block, Found, VectorFile

# What DuckDB may hold of a table while its vectors are read.
_READING_MEMORY = "256MB"
# How far DuckDB's cosine of the rows that were found may be from the file's.
_TOLERANCE = 1e-4
_TOUCH_SECONDS = 3600
_NO_RELATIONS = frozenset({NodeKind.MODEL.value, NodeKind.MODEL_VERSION.value, NodeKind.RAW.value})


class Outdated(Exception):  # noqa: N818 - a state to go on from, not an error that is told
    """The file does not fit the table, or the rows cannot be told in this way."""


@dataclass(frozen=True)
class PlainRows:
    """The rows of a search that are rows of one table, as it was when it was last made.

    Attributes:
        query: the search's query.
        version: the table's data version.
        foreign: what stands for what other programs wrote since.
    """

    query: Rowwise
    version: str
    foreign: str = ""

    @property
    def table(self) -> str:
        """The table as it stands in SQL."""
        return quote(self.query.table)

    @classmethod
    def of(
        cls, sql: str, node: Node, connection: duckdb.DuckDBPyConnection, runtime: Runtime
    ) -> PlainRows | None:
        """Those of ``sql``, a query ready for ``connection``; ``None`` where it does more than pick rows."""
        query = rowwise(sql)
        if query is None:
            return None
        keys = [key for key in node.reads if key[0] not in _NO_RELATIONS]
        key = next((key for key in keys if key[1].casefold() == query.table.casefold()), None)
        version = None if key is None else runtime.data_version(key)
        names = {column.name.casefold() for column in describe(connection, quote(query.table))}
        if version is None or names & {"rowid", ROW}:
            return None
        return cls(query, version, runtime.warehouse.foreign_mark(query.table))

    def still(self, runtime: Runtime) -> bool:
        """Whether no other program has written the table's file since."""
        return runtime.warehouse.foreign_mark(self.query.table) == self.foreign

    def path(self, column: str, of: str, answers: PredictionCache) -> Path:
        """The file with the vectors of the table's ``column``, be it there or not.

        Args:
            column: as the result of the query has it.
            of: ``'vectors'``, or ``'texts'`` that the model embeds.
            answers: the model's.
        """
        from thano_assets.learning.nearest import FORMAT

        return answers.vectors_path(
            f"{FORMAT}\n{self.version}\n{self.foreign}\n{self.query.column(column)}\n{of}"
        )


def opened(path: Path, answers: PredictionCache) -> VectorFile | None:
    """The file at ``path``, or the one of the same name that production has."""
    from thano_assets.learning.nearest import VectorFile

    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _TOUCH_SECONDS:
            os.utime(path)  # used now, so it is among the last to make room
    found = VectorFile.opened(path)
    if found is None and answers.borrowed is not None:
        found = VectorFile.opened(answers.borrowed / path.name, own=False)
    return found


def vectors_of(
    rows: PlainRows, column: str, size: int, answers: PredictionCache, runtime: Runtime
) -> VectorFile | None:
    """The vectors of a column that holds vectors; ``None`` where they cannot be kept in a file.

    Args:
        rows: the search's.
        column: as the result of the query has it.
        size: numbers of a vector.
        answers: of the model, which say where files lie.
        runtime: the workspace's resources.
    """
    import duckdb

    from thano_assets.learning.nearest import VectorFile

    name = rows.query.column(column)
    if name is None:
        return None
    path = rows.path(column, "vectors", answers)
    if (found := opened(path, answers)) is not None:
        return found
    warehouse = copy.copy(runtime.warehouse)
    warehouse.memory_limit = warehouse.memory_limit or _READING_MEMORY
    try:
        with warehouse.read() as connection:
            total = connection.execute(f"SELECT count(*) FROM {rows.table}").fetchall()[0][0]
            if total * size * 4 > MOST_VECTOR_BYTES:
                return None
            reader = connection.sql(
                f"SELECT rowid, CAST({quote(name)} AS FLOAT[{size}]) FROM {rows.table}"
            ).to_arrow_reader(_block())
            with runtime.progress.task("Reading vectors", total=total) as task:
                answers.folder.mkdir(parents=True, exist_ok=True)
                found = VectorFile.write(path, size, _blocks(reader, size, None, task), {})
    except duckdb.Error as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        return None
    except OSError:
        return None
    answers.tidy(runtime.workspace)
    return found


def staged_vectors(
    stage: Stage, relation: str, text: str, size: int, path: Path, told: Mapping[str, Any]
) -> VectorFile:
    """Write the vectors of the staged rows to ``path``; their numbers count from 0, in the rows' order.

    Args:
        stage: with the table ``rows``.
        relation: a query with ``number`` (of the row, from 1) and ``p`` (FLOAT[], NULL where there is none).
        text: the column whose texts they are.
        size: numbers of a vector.
        path: where.
        told: is kept with the file.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    from thano_assets.learning.nearest import VectorFile

    with stage.connection.cursor() as cursor:
        marks = cursor.execute(f"SELECT {_mark(quote(text))} AS mark FROM rows").fetchnumpy()["mark"]
        reader = cursor.sql(
            f"SELECT number - 1 AS number, CAST(p AS FLOAT[{size}]) FROM ({relation})"
        ).to_arrow_reader(_block())
        return VectorFile.write(path, size, _blocks(reader, size, marks, None), told)


def is_numbered(rows: PlainRows, count: int, runtime: Runtime) -> bool:
    """Whether the query has all ``count`` rows of the table, and these are numbered from 0 without a gap."""
    if rows.query.filtered:
        return False
    with runtime.warehouse.read() as connection:
        found = connection.execute(f"SELECT count(*), max(rowid) FROM {rows.table}").fetchall()[0]
    return bool(count) and found == (count, count - 1)


@dataclass(frozen=True)
class SearchInFile:
    """A search in a file.

    Attributes:
        rows: what is searched.
        file: the vectors of all rows of the table.
        column: where the vectors or texts stand in the query's result.
        vector: what is searched for, float32 of shape (size,).
        top_k: most rows.
    """

    rows: PlainRows
    file: VectorFile
    column: str
    vector: np.ndarray
    top_k: int

    @contextmanager
    def found(
        self, connection: duckdb.DuckDBPyConnection, result: str, same: str
    ) -> Iterator[tuple[str, int, int]]:
        """Search, and make sure of what was found.

        Args:
            connection: one that writes; the search is part of its transaction.
            result: name of the column with the cosine.
            same: an SQL condition on ``h``, a row of the query's result, and ``f`` with what is known of it
                (``score``, ``mark``).

        Yields:
            A query for the rows that were found, how many rows were searched, and how many have no vector.

        Raises:
            Outdated: the table is not that of the file.
        """
        import duckdb

        mark = uuid.uuid4().hex[:8]
        found, hits = f"found_{mark}", f"hits_{mark}"
        joined = f"FROM {hits} h JOIN {found} f ON h.{ROW} = f.row"
        try:
            searched, missing, nearest = self._nearest(connection)
            connection.register(found, table_of(nearest))
            # By itself: DuckDB reads single rows by their number for a condition, and not for a join.
            connection.execute(f"CREATE TEMP TABLE {hits} AS {self.rows.query.of_rows(found)}")
            certain = connection.execute(f"SELECT count(*) {joined} WHERE {same}").fetchall()[0][0]
        except duckdb.Error as error:
            if interrupted(error):
                raise KeyboardInterrupt from error
            raise Outdated from error
        if certain != len(nearest.rows):
            raise Outdated
        columns = f"h.* EXCLUDE ({ROW}), f.score AS {quote(result)}"
        yield f"SELECT {columns} {joined} ORDER BY f.place", searched, missing
        connection.execute(f"DROP TABLE {hits}")
        connection.unregister(found)

    def _nearest(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, int, Found]:
        import numpy as np

        from thano_assets.learning.nearest import MISSING

        total = connection.execute(f"SELECT count(*) FROM {self.rows.table}").fetchall()[0][0]
        if total != len(self.file.rows):
            raise Outdated
        allowed, without = None, self.file.missing
        if self.rows.query.filtered:
            allowed = connection.execute(self.rows.query.row_ids()).fetchnumpy()[ROW]
            total = len(allowed)
            without = int(np.count_nonzero(np.isin(self.file.rows, allowed) & (self.file.states == MISSING)))
        return total - without, without, self.file.nearest(self.vector, self.top_k, allowed)

    def same_vectors(self) -> str:
        """The condition of :meth:`found` for a column of vectors: they have the cosine that was told."""
        vectors = f"CAST(h.{quote(self.column)} AS FLOAT[{len(self.vector)}])"
        cosine = f"array_cosine_similarity({vectors}, {vector_literal(self.vector)})"
        return f"abs({cosine} - f.score) <= {_TOLERANCE}"

    def same_texts(self) -> str:
        """The condition of :meth:`found` for a column of texts: they are the very texts."""
        return f"{_mark(f'h.{quote(self.column)}')} = f.mark"


def table_of(found: Found) -> pa.Table:
    """What was found as a table: ``place``, ``row``, ``score``, ``mark``."""
    import numpy as np
    import pyarrow as pa

    columns = {"place": np.arange(len(found.rows)), "row": found.rows}
    return pa.table({**columns, "score": found.scores, "mark": found.marks})


def vector_literal(vector: np.ndarray) -> str:
    """A vector in SQL."""
    return f"CAST([{', '.join(repr(float(number)) for number in vector)}] AS FLOAT[{len(vector)}])"


def _mark(text: str) -> str:
    return f"hash(CAST({text} AS VARCHAR))"


def _block() -> int:
    from thano_assets.learning.nearest import BLOCK

    return BLOCK


def _blocks(reader: pa.RecordBatchReader, size: int, marks: np.ndarray | None, task: Any) -> Iterator[Block]:
    """Blocks of a reader of row numbers and vectors; ``marks`` are those of the rows by their numbers."""
    import numpy as np

    from thano_assets.learning.nearest import Block

    for batch in reader:
        rows = batch.column(0).to_numpy(zero_copy_only=False).astype(np.int64)
        column = batch.column(1)
        missing = np.asarray(column.is_null().to_numpy(zero_copy_only=False))
        values = column.values.slice(column.offset * size, len(column) * size)
        vectors = values.to_numpy(zero_copy_only=False).reshape(-1, size)
        of = np.zeros(len(rows), np.uint64) if marks is None else marks[rows]
        yield Block(rows, of, vectors, missing)
        if task is not None:
            task.advance(len(rows))
