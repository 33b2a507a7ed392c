"""One forward pass over many encoded texts, in the batches that waste least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from .device import token_budget
from .encode import Encoded, budgeted_batches, padded


def batch_tensors(
    encoded: Encoded, rows: np.ndarray, pad_id: int, place: torch.device
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` of the rows, int64 tensors of shape (B, T) on ``place``."""
    ids, mask = padded([encoded.ids[row] for row in rows], pad_id, encoded.limit)
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

    The model is put into evaluation mode and keeps the device it is on.
    """
    model.eval()
    place = next(model.parameters()).device
    for rows in budgeted_batches(encoded.lengths, token_budget(place), most_rows):
        with torch.inference_mode(), autocast():
            found = model(**batch_tensors(encoded, rows, pad_id, place)).logits
        yield rows, found.float().cpu().numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits (N, C), float32, rows summing to 1."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
