"""Training of a head alone: the encoder runs once over the rows, the head learns on what it gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..progress import Progress
from .device import autocast, token_budget
from .encode import Encoded, budgeted_batches
from .first_token import FirstTokenEncoder, supported
from .infer import batch_tensors

Forward = Callable[[np.ndarray], torch.Tensor]


def frozen_features(
    model: Any, encoded: Encoded, pad_id: int, precision: str, progress: Progress
) -> torch.Tensor:
    """The encoder's last hidden state at each text's first token, float32 of shape (N, H), on the CPU."""
    encoder = model.base_model.eval()
    first_token = FirstTokenEncoder(model) if supported(model) else None
    place = next(model.parameters()).device
    features: torch.Tensor | None = None
    with progress.task("Embedding", total=len(encoded.ids)) as task:
        for rows in budgeted_batches(encoded.lengths, token_budget(place)):
            with torch.inference_mode(), autocast(place, precision):
                batch = batch_tensors(encoded, rows, pad_id, place)
                if first_token is None:
                    found = encoder(**batch)[0][:, 0].float().cpu()
                else:
                    found = first_token(batch["input_ids"], encoded.lengths[rows].tolist())
            if features is None:
                features = torch.empty(len(encoded.ids), found.shape[1])
            features[torch.from_numpy(rows)] = found
            task.advance(len(rows))
    assert features is not None
    return features


class SharedFeatures:
    """Features of the same rows by the same encoder, computed once for all trainings that share them."""

    _MOST_BYTES = 1 << 30

    def __init__(self) -> None:
        self._kept: dict[int, torch.Tensor] = {}

    def get(self, max_length: int, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The features of the rows, cut at ``max_length`` tokens; from ``compute`` the first time."""
        if max_length in self._kept:
            return self._kept[max_length]
        features = compute()
        if sum(one.nbytes for one in (*self._kept.values(), features)) <= self._MOST_BYTES:
            self._kept[max_length] = features
        return features


class _Remembered(torch.nn.Module):
    """Stands in for an encoder: what it gave is handed in; its pooler, part of the head here, still works."""

    def __init__(self, pooler: torch.nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler
        self.hidden: torch.Tensor | None = None

    def forward(self, *_: object, **__: object) -> BaseModelOutputWithPooling:
        """The features set before, as (B, 1, H), in the form that every head of Transformers reads."""
        assert self.hidden is not None
        pooled = self.pooler(self.hidden) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=self.hidden, pooler_output=pooled)


@contextmanager
def head_only(model: Any, features: torch.Tensor) -> Iterator[Forward]:
    """Inside the block only the head of ``model`` is trainable and it reads ``features`` by row number.

    What counts as the head: everything outside of the encoder, and the encoder's pooler where it has one.
    """
    prefix = model.base_model_prefix
    encoder = getattr(model, prefix)
    pooler = getattr(encoder, "pooler", None)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(prefix + ".") or name.startswith(prefix + ".pooler."))
    place = next(model.parameters()).device
    stand_in = _Remembered(pooler)
    setattr(model, prefix, stand_in)

    def forward(rows: np.ndarray) -> torch.Tensor:
        stand_in.hidden = features[torch.from_numpy(rows)].to(place)[:, None, :]
        logits: torch.Tensor = model(
            input_ids=torch.zeros(len(rows), 1, dtype=torch.long, device=place)
        ).logits
        return logits

    try:
        yield forward
    finally:
        setattr(model, prefix, encoder)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trainable[name])
