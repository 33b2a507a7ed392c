"""Vectors in a file, and those of them that are nearest to another one by their cosine.

All vectors are compared (an exact search): one matrix-vector product over a matrix that is mapped from its
file. The file is an Arrow IPC file, so its blocks are numpy arrays where they lie.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..system import scratch_file

if TYPE_CHECKING:
    import pyarrow as pa

#: Part of the name of what is kept; changes when the meaning of the file's columns does.
FORMAT = 1
#: Rows of a block of the file.
BLOCK = 16_384
#: Vectors that stay mapped between the searches of a process, bytes; a larger file is mapped piece by piece.
CACHED_BYTES = 256 * 1024**2
_PIECE_BYTES = 64 * 1024**2
_TOGETHER = 512  # vectors computed again at a time

#: States of a row: with a vector; with one that has no direction (zeros, no numbers); without.
DIRECTED, NOWHERE, MISSING = 0, 1, 2


@dataclass(frozen=True)
class Block:
    """Rows of a table with what was made of them.

    Attributes:
        rows: their numbers, int64 of shape (B,).
        marks: what each vector was made from, as a number that tells changes, uint64 of shape (B,).
        vectors: float32 of shape (B, size), of any length; anything where ``missing``.
        missing: bool of shape (B,).
    """

    rows: np.ndarray
    marks: np.ndarray
    vectors: np.ndarray
    missing: np.ndarray


@dataclass(frozen=True)
class Found:
    """The nearest rows, the nearest first; of equally near ones the row of the smaller number.

    Attributes:
        rows: their numbers, int64 of shape (K,).
        scores: cosines, float32 of shape (K,).
        marks: uint64 of shape (K,).
    """

    rows: np.ndarray
    scores: np.ndarray
    marks: np.ndarray


class VectorFile:
    """The vectors of a table's rows, scaled to length 1.

    Attributes:
        size: numbers of a vector.
        rows: numbers of the rows, int64 of shape (N,).
        marks: uint64 of shape (N,).
        states: uint8 of shape (N,); see :data:`DIRECTED`.
        told: what was said when it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._mapped() as reader:
            told = reader.schema.metadata or {}
            self.told: dict[str, Any] = json.loads(told.get(b"told", b"{}"))
            self.size = int(reader.schema.field("v").type.list_size)
            blocks = [reader.get_batch(place) for place in range(reader.num_record_batches)]
            self._starts = np.cumsum([0, *(block.num_rows for block in blocks)])
            self.rows = _column(blocks, "row", np.int64)
            self.marks = _column(blocks, "mark", np.uint64)
            self.states = _column(blocks, "state", np.uint8)
            cached = self.nbytes <= CACHED_BYTES
            # The views hold the mapping; nothing is read before it is needed.
            self._loaded = [_matrix(block, self.size) for block in blocks] if cached else None

    @property
    def nbytes(self) -> int:
        """What the vectors take."""
        return len(self.rows) * self.size * 4

    @property
    def missing(self) -> int:
        """How many rows have no vector."""
        return int(np.count_nonzero(self.states == MISSING))

    @classmethod
    def opened(cls, path: Path, *, own: bool = True) -> VectorFile | None:
        """The file at ``path``, from this process's memory where it is the same still; ``None`` without one.

        A file that cannot be read is removed, if it is the workspace's ``own``.
        """
        import pyarrow as pa

        try:
            status = path.stat()
            key = (str(path), status.st_ino, status.st_mtime_ns)
            return _kept.get(key) or _kept.add(key, cls(path))
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError, KeyError, ValueError):
            if own:
                path.unlink(missing_ok=True)
            return None

    @classmethod
    def write(cls, path: Path, size: int, blocks: Iterable[Block], told: Mapping[str, Any]) -> VectorFile:
        """Write a file, which appears whole, and open it; memory is that of a block.

        Args:
            path: where; the folder is there.
            size: numbers of a vector.
            blocks: at least none; rows in any order.
            told: is kept with the file (plain JSON).

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        import pyarrow as pa

        schema = pa.schema(
            {"row": pa.int64(), "mark": pa.uint64(), "state": pa.uint8(), "v": pa.list_(pa.float32(), size)},
            metadata={"told": json.dumps(dict(told))},
        )
        with scratch_file(path.parent) as temporary:
            with temporary.open("wb") as file:
                with pa.ipc.new_file(file, schema) as writer:
                    for block in blocks:
                        writer.write_batch(_record(block, schema))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        return cls(path)

    def nearest(self, query: np.ndarray, top_k: int, allowed: np.ndarray | None = None) -> Found:
        """The rows whose vectors are nearest to ``query`` by cosine.

        Ties are exact: a score depends on its two vectors alone, not on where they lie or on threads.

        Args:
            query: float32 of shape (size,), of any length.
            top_k: most rows.
            allowed: numbers of the rows that may be found, int64; all by default.
        """
        length = float(np.linalg.norm(query.astype(np.float64)))
        if not (0 < length < np.inf):
            return self._nothing()
        unit = (query.astype(np.float64) / length).astype(np.float32)
        scores = self._products(unit)
        usable = self.states == DIRECTED
        if allowed is not None:
            usable &= np.isin(self.rows, allowed)
        if not usable.all():
            scores[~usable] = -np.inf
        count = min(top_k, int(np.count_nonzero(usable)))
        if not count:
            return self._nothing()
        # Of two unit vectors a product in float32 is wrong by at most size * 2^-24, in whatever order it is
        # added up (Higham, Accuracy and Stability of Numerical Algorithms, 3.1): whoever could belong to
        # the nearest is computed again, exactly and in one order.
        slack = 2.0 * self.size * 2.0**-24
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least - slack)
        exact = self._exact(places, unit)
        order = np.lexsort((self.rows[places], -exact))[:count]
        places = places[order]
        return Found(self.rows[places], exact[order], self.marks[places])

    def _nothing(self) -> Found:
        empty = np.empty(0, np.int64)
        return Found(empty, np.empty(0, np.float32), np.empty(0, np.uint64))

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _mapped(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self.path)))

    def _pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        """The matrix (B, size) block by block, each with the place of its first row."""
        if self._loaded is not None:
            yield from zip(self._starts.tolist(), self._loaded, strict=False)
            return
        step = max(1, _PIECE_BYTES // max(1, BLOCK * self.size * 4))
        for first in range(0, len(self._starts) - 1, step):
            # Mapped again, so that what was read before does not stay in this process's memory.
            with self._mapped() as reader:
                for place in range(first, min(first + step, len(self._starts) - 1)):
                    yield int(self._starts[place]), _matrix(reader.get_batch(place), self.size)

    def _products(self, unit: np.ndarray) -> np.ndarray:
        scores = np.empty(len(self.rows), dtype=np.float32)
        for start, matrix in self._pieces():
            np.matmul(matrix, unit, out=scores[start : start + len(matrix)])
        return scores

    def _exact(self, places: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Cosines, float32 of shape (K,), with the vectors at ascending ``places``, each added up alike."""
        found = np.empty(len(places), dtype=np.float32)
        wide = unit.astype(np.float64)
        for start, matrix in self._pieces():
            first, last = np.searchsorted(places, [start, start + len(matrix)])
            for part in range(first, last, _TOGETHER):
                some = slice(part, min(part + _TOGETHER, last))
                vectors = matrix[places[some] - start].astype(np.float64)
                found[some] = np.einsum("ij,j->i", vectors, wide)
        return found


def unit_vectors(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (B, size) scaled to length 1, float32, and which of them have a direction, bool (B,).

    Those that have none are zeros.
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    directed = np.isfinite(lengths) & (lengths > 0)
    scale = np.where(directed, 1 / np.where(directed, lengths, 1), 0)
    with np.errstate(invalid="ignore"):
        scaled = (vectors * scale[:, None]).astype(np.float32)
    scaled[~directed] = 0
    return scaled, directed


def _record(block: Block, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    scaled, directed = unit_vectors(block.vectors)
    scaled[block.missing] = 0
    states = np.where(block.missing, MISSING, np.where(directed, DIRECTED, NOWHERE)).astype(np.uint8)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(scaled.ravel()), schema.field("v").type.list_size)
    return pa.record_batch([pa.array(block.rows), pa.array(block.marks), pa.array(states), vectors], schema)


def _matrix(block: pa.RecordBatch, size: int) -> np.ndarray:
    return _numbers(block.column("v").flatten(), np.float32).reshape(-1, size)


def _numbers(column: pa.Array, kind: Any) -> np.ndarray:
    """A column without nulls as a view; its own ``to_numpy`` imports pandas."""
    width = np.dtype(kind).itemsize
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * width)


def _column(blocks: list[pa.RecordBatch], name: str, kind: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *(_numbers(block.column(name), kind) for block in blocks)])


class _Kept:
    """The files that were searched last, of at most :data:`CACHED_BYTES` together."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[object, ...], VectorFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> VectorFile | None:
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
            return self._files.get(key)

    def add(self, key: tuple[object, ...], file: VectorFile) -> VectorFile:
        with self._lock:
            if file.nbytes <= CACHED_BYTES:
                self._files[key] = file
                while sum(one.nbytes for one in self._files.values()) > CACHED_BYTES:
                    self._files.popitem(last=False)
        return file


_kept = _Kept()
