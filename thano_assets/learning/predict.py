"""Answers of a trained model: texts in, probabilities out, in the order of the texts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ..errors import UnknownModel
from ..progress import SILENT, Progress
from . import device as places
from .encode import Encoder
from .infer import logits_by_batch, softmax
from .quiet import quiet_transformers
from .warm import Warm

WINDOW = 4096  # texts held, sorted by length and answered together; bounds the memory


class Predictor:
    """A model ready to answer.

    Attributes:
        classes: labels in the order of the probabilities' columns.
        max_length: tokens read of a text; longer ones are cut as they were in training.
        device, precision: where and how it computes; bfloat16 weights where the hardware has it.
        truncated: texts cut so far.
    """

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self._model = model
        self._encoder = encoder
        self._lock = threading.Lock()
        labels = model.config.id2label
        self.classes = [labels[place] for place in sorted(labels)]
        self.max_length = encoder.max_length
        self.device = places.describe(model.device)
        self.precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
        self.truncated = 0

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
        try:
            with quiet_transformers():
                model = AutoModelForSequenceClassification.from_pretrained(
                    model_dir,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=torch.bfloat16 if chosen == "bf16" else torch.float32,
                )
                tokenizer = AutoTokenizer.from_pretrained(model_dir)
        except (OSError, ValueError) as error:
            raise UnknownModel(
                f"{model_dir} holds no complete sequence classifier.",
                hint="It needs config.json, model.safetensors and tokenizer files; build the model again.",
            ) from error
        return cls(model.to(place).eval(), Encoder.of_model(tokenizer, model.config))

    @classmethod
    def cached(cls, model_dir: Path) -> Self:
        """As :meth:`load`, but a model used lately in this process is still warm."""
        found: Self = _warm.get(cls, model_dir, cls.load)
        return found

    def predict(self, texts: Sequence[str | None]) -> np.ndarray:
        """Probabilities, float32 of shape (N, C); a missing or blank text has a row of NaN."""
        found = np.full((len(texts), len(self.classes)), np.nan, dtype=np.float32)
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            found[start : start + len(window)] = self._window(window, None, None)[0]
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

    def answer_batches(
        self,
        batches: Iterable[Sequence[str | None]],
        progress: Progress = SILENT,
        total: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Probabilities of each batch of texts, float32 of shape (N, C), and which texts were cut, bool (N,).

        Memory is that of one batch. Batches of some thousand texts waste least: texts are sorted by length
        within a batch.

        Args:
            batches: lists of texts.
            progress: is told about the texts answered.
            total: how many texts there are, where known.
            batch_size: most texts that the model reads at a time; by default tokens alone fill a batch.
        """
        with progress.task("Predicting", total=total) as task:
            for texts in batches:
                found = np.full((len(texts), len(self.classes)), np.nan, dtype=np.float32)
                cut = np.zeros(len(texts), dtype=bool)
                for start in range(0, len(texts), WINDOW):
                    window = texts[start : start + WINDOW]
                    part = slice(start, start + len(window))
                    found[part], cut[part] = self._window(window, task, batch_size)
                yield found, cut

    def _window(
        self, texts: Sequence[str | None], task: Any, batch_size: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        places_of: dict[str, list[int]] = {}  # the same text is read once
        for place, text in enumerate(texts):
            if text is not None and text.strip():
                places_of.setdefault(text, []).append(place)
        found = np.full((len(texts), len(self.classes)), np.nan, dtype=np.float32)
        cut = np.zeros(len(texts), dtype=bool)
        if task is not None:
            task.advance(len(texts) - sum(map(len, places_of.values())))
        unique = list(places_of)
        with self._lock:  # fast tokenizers keep settings of the call at hand
            encoded = self._encoder.encode(unique)
            for text, long in zip(unique, encoded.cut, strict=True):
                cut[places_of[text]] = long
            self.truncated += int(cut.sum())
        for rows, logits in logits_by_batch(self._model, encoded, self._encoder.pad_id, most_rows=batch_size):
            proba = softmax(logits)
            answered = 0
            for row, values in zip(rows, proba, strict=True):
                targets = places_of[unique[row]]
                found[targets] = values
                answered += len(targets)
            if task is not None:
                task.advance(answered)
        return found, cut


_warm: Warm[Any] = Warm()
