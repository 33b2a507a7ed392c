"""Training of a head alone: the encoder runs once over the rows, the head learns on what it gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..progress import Progress
from .device import autocast
from .device_memory import batches_in_memory, token_budget
from .encode import Encoded, Encoder, budgeted_batches
from .first_token import FirstTokenEncoder, supported
from .infer import batch_tensors

Forward = Callable[[np.ndarray], torch.Tensor]


class FeatureCache(Protocol):
    """Features of texts that an encoder gave before.

    ``reading`` names all that features depend on besides the encoder's weights and the text.
    """

    def recall(self, reading: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the known texts, shape (K,), and their features, float32 of shape (K, H)."""

    def keep(self, reading: str, texts: Sequence[str], features: np.ndarray) -> None:
        """Add the features, float32 of shape (len(texts), H)."""


def frozen_features(
    model: Any,
    texts: Sequence[str],
    encoded: Encoded,
    encoder: Encoder,
    precision: str,
    progress: Progress,
    cache: FeatureCache | None = None,
) -> torch.Tensor:
    """The encoder's last hidden state at each text's first token, float32 of shape (N, H), on the CPU.

    Args:
        model: a classifier of Transformers.
        texts: N texts.
        encoded: the same, as token ids by ``encoder``.
        encoder: cuts the texts.
        precision: that the encoder computes in.
        progress: is told how far it is.
        cache: gives the features that are known, and keeps the others.
    """
    reading = f"{encoder.max_length} {encoder.head_share:g} {precision}"
    known, kept = cache.recall(reading, texts) if cache is not None else (np.empty(0, np.intp), None)
    unknown = np.setdiff1d(np.arange(len(texts)), known)
    if len(known):
        progress.message(f"{len(known):,} of {len(texts):,} texts were embedded before")
    features = torch.empty(len(texts), model.config.hidden_size)
    if kept is not None and len(known):
        features[torch.from_numpy(known)] = torch.from_numpy(kept)
    if not len(unknown):
        return features
    frozen = model.base_model.eval()
    first_token = FirstTokenEncoder(model) if supported(model) else None
    place = next(model.parameters()).device

    def embedded(rows: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        with torch.inference_mode(), autocast(place, precision):
            batch = batch_tensors(encoded, rows, encoder.pad_id, place)
            if first_token is None:
                return rows, frozen(**batch)[0][:, 0].float().cpu()
            return rows, first_token(batch["input_ids"], encoded.lengths[rows].tolist())

    batches = (unknown[chosen] for chosen in budgeted_batches(encoded.lengths[unknown], token_budget(place)))
    with progress.task("Embedding", total=len(unknown)) as task:
        for rows, found in batches_in_memory(
            place, batches, lambda rows: int(encoded.lengths[rows].max()), embedded
        ):
            features[torch.from_numpy(rows)] = found
            task.advance(len(rows))
    if cache is not None:
        cache.keep(reading, [texts[row] for row in unknown], features[torch.from_numpy(unknown)].numpy())
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
