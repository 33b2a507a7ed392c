"""One forward pass over many encoded texts, in the batches that waste least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from .device_memory import batches_in_memory, token_budget
from .encode import Encoded, budgeted_batches, packed_batches, padded
from .threads import in_threads, workers

# Widths of short batches, whose padding costs most, are multiples of fewer tokens than those of training.
_NARROW, _NARROW_UP_TO = 8, 64


def batch_tensors(
    encoded: Encoded, rows: np.ndarray, pad_id: int, place: torch.device, *, narrow: bool = False
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` of the rows, int64 tensors of shape (B, T) on ``place``.

    ``narrow`` pads short texts less, which makes more different shapes.
    """
    texts = [encoded.ids[row] for row in rows]
    longest = max(map(len, texts))
    narrowed = narrow and longest <= _NARROW_UP_TO
    ids, mask = padded(texts, pad_id, -(-longest // _NARROW) * _NARROW if narrowed else encoded.limit)
    return {
        "input_ids": torch.from_numpy(ids).to(place),
        "attention_mask": torch.from_numpy(mask).to(place),
    }


def logits_by_batch(
    model: torch.nn.Module,
    encoded: Encoded,
    pad_id: int,
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    most_rows: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of row numbers (B,) and float32 logits (B, C), longest texts first.

    The model is put into evaluation mode and keeps the device it is on. What it gives has the attribute
    ``logits``, or is a tensor: logits, or vectors.
    """
    model.eval()
    place = next(model.parameters()).device
    lengths, budget = encoded.lengths, token_budget(place)

    def answered(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode(), autocast():
            found = model(**batch_tensors(encoded, rows, pad_id, place, narrow=True))
        return rows, getattr(found, "logits", found).float().cpu().numpy()

    if not getattr(model, "packs", False):
        batches = budgeted_batches(lengths, budget, most_rows)
        yield from batches_in_memory(place, batches, lambda rows: int(lengths[rows].max()), answered)
    elif workers() == 1 or len(lengths) == 1:
        yield from map(answered, packed_batches(lengths, budget, most_rows))
    else:  # few texts are dealt out evenly
        budget = min(budget, -(-int(lengths.sum()) // workers()))
        yield from in_threads(answered, packed_batches(lengths, budget, most_rows))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (N, C), float32, rows summing to 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
