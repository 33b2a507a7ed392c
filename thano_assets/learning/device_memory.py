"""How much is computed at a time, and less of it where a device's memory turns out to be too small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

from ..errors import DeviceMemory
from ..progress import current
from .device import device

T = TypeVar("T")
_CPU, _OTHER = 4096, 65536
_learnt: dict[torch.device, int] = {}  # tokens that a device holds at a time, where fewer than at first


def token_budget(place: torch.device) -> int:
    """Padded tokens of one batch: what fits a processor's caches, or keeps a GPU busy and fits its memory."""
    return _learnt.get(place, _CPU if place.type == "cpu" else _OTHER)


def in_smaller_parts(
    place: torch.device, rows: int, width: int, compute: Callable[[int], T], undo: Callable[[], object]
) -> T:
    """``compute`` of the tokens that are held at a time, and of half of them until the memory is enough.

    Args:
        place: the device.
        rows: that are computed in all.
        width: tokens of the longest.
        compute: given a number of tokens, computes parts of at most so many, or of one row.
        undo: clears what a computation that failed has left.

    Raises:
        DeviceMemory: a single row does not fit.
    """
    while True:
        budget = token_budget(place)
        try:
            return compute(budget)
        except torch.OutOfMemoryError:
            pass  # the tensors that the exception's traceback holds are free from here on
        undo()
        _halve(place, min(rows, max(1, budget // width)), width)


def batches_in_memory(
    place: torch.device,
    batches: Iterable[np.ndarray],
    width: Callable[[np.ndarray], int],
    compute: Callable[[np.ndarray], T],
) -> Iterator[T]:
    """``compute`` of each batch of row numbers, in turn; in halves where the memory holds no more.

    Args:
        place: the device.
        batches: row numbers, each an array of shape (B,).
        width: tokens of the longest of some rows, padding included.
        compute: what is wanted of some rows.

    Raises:
        DeviceMemory: a single row does not fit.
    """
    for batch in batches:
        waiting = [batch]
        while waiting:
            rows = waiting.pop()
            if len(rows) > 1 and place in _learnt and len(rows) * width(rows) > _learnt[place]:
                waiting += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
                continue
            try:
                found = compute(rows)
            except torch.OutOfMemoryError:
                waiting.append(rows)
            else:
                yield found
                continue
            _halve(place, len(rows), width(rows))


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Inside the block, a device's full memory is an error of the user's.

    Args:
        what: that does not fit, as the beginning of a sentence.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemory(
            f"{what} does not fit into the memory of {_name(device())}.",
            hint="Take a smaller base model, or end what else uses that memory.",
        ) from error


def _halve(place: torch.device, rows: int, width: int) -> None:
    """Hold half as many tokens at a time as these rows have, which were too many, and say so."""
    torch.accelerator.empty_cache()
    if rows <= 1:
        raise DeviceMemory(
            f"A text of {width:,} tokens does not fit into the memory of {_name(place)}.",
            hint="Set max_length lower, take a smaller base model, or end what else uses that memory.",
        )
    _learnt[place] = rows * width // 2
    current().warning(
        f"{rows:,} texts of {width:,} tokens do not fit into the memory of {_name(place)}: "
        f"at most {_learnt[place]:,} tokens are computed at a time from here on. Results are the same."
    )


def _name(place: torch.device) -> str:
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type
