"""Answers of a trained model: texts in, probabilities out, in the order of the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..progress import SILENT, Progress
from . import device as places
from .answering import WINDOW, Answering, no_model
from .encode import Encoded, Encoder
from .infer import logits_by_batch, softmax
from .inference_encoder import InferenceEncoder, Layout, NotServed
from .tokens import load_tokenizer

# In bfloat16 the difference of two logits was off by at most 2.8 % of its mean (1,500 reviews). Texts whose
# two best labels are nearer to one another than that, about one in 200, are decided in float32.
_NEAR = 0.03

__all__ = ["WINDOW", "Predictor"]


class Predictor(Answering):
    """A classifier ready to answer.

    Attributes:
        classes: labels in the order of the probabilities' columns.
    """

    _doing, _unit = "Predicting", "rows"

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self._exact: Callable[[], Any] | None = None  # loads the model in float32
        labels = model.config.id2label
        self.classes: list[str] = [labels[place] for place in sorted(labels)]
        super().__init__(model, encoder, len(self.classes))

    @classmethod
    def load(cls, model_dir: Path, *, precision: str | None = None) -> Self:
        """Load a Hugging Face folder.

        Args:
            model_dir: holds configuration, safetensors weights and tokenizer.
            precision: ``'fp32'`` or ``'bf16'``; by default what the hardware is good at.

        Raises:
            UnknownModel: the folder is no such model.
        """
        place = places.device()
        chosen = precision or places.precision(place)
        dtype = torch.bfloat16 if chosen == "bf16" else torch.float32
        try:
            model, tokenizer = cls._parts(Path(model_dir), place, dtype)
            found = cls(model, Encoder.of_model(tokenizer, model.config))
        except (OSError, ValueError) as error:
            raise no_model(Path(model_dir), "sequence classifier") from error
        if isinstance(model, InferenceEncoder) and dtype == torch.bfloat16:
            found._exact = cache(
                lambda: InferenceEncoder(Layout.read(Path(model_dir), classifier=True), place, torch.float32)
            )
        return found

    @classmethod
    def _parts(cls, model_dir: Path, place: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
        """Model and tokenizer."""
        if cls is Predictor:  # subclasses do more with a model than have it answer, such as take gradients
            try:
                layout = Layout.read(model_dir, classifier=True)
                return InferenceEncoder(layout, place, dtype), load_tokenizer(model_dir)
            except NotServed:
                pass
        from . import transformers_models

        return transformers_models.load_classifier(
            model_dir, place, dtype
        ), transformers_models.load_tokenizer(model_dir)

    def predict(self, texts: Sequence[str | None]) -> np.ndarray:
        """Probabilities, float32 of shape (N, C); a missing or blank text has a row of NaN."""
        [found] = self.predict_batches([texts])
        return found

    def predict_batches(
        self,
        batches: Iterable[Sequence[str | None]],
        progress: Progress = SILENT,
        total: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Probabilities of each batch of texts, in turn; as :meth:`answer_batches`."""
        for found, _ in self.answer_batches(batches, progress, total, batch_size):
            yield found

    def _answers(self, outputs: np.ndarray, encoded: Encoded, batch_size: int | None) -> np.ndarray:
        if self._exact is not None and len(rows := near_ties(outputs)):
            with suppress(NotServed):  # the folder has gone since the model was loaded
                model, few = self._exact(), encoded.take(rows)
                for part, found in logits_by_batch(model, few, self._encoder.pad_id, most_rows=batch_size):
                    outputs[rows[part]] = found
        return softmax(outputs)


def near_ties(logits: np.ndarray) -> np.ndarray:
    """Numbers of the rows of logits (N, C) whose label rounding could change, shape (K,)."""
    if logits.shape[1] < 2:
        return np.array([], dtype=np.int64)
    best = np.partition(logits, -2, axis=1)[:, -2:]
    margins = best[:, 1] - best[:, 0]
    found: np.ndarray = np.flatnonzero(margins < _NEAR * margins.mean())
    return found
