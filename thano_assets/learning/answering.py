"""What predictions and embeddings share: many texts through one model, in the batches that waste least."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from ..errors import UnknownModel, WorkspaceError
from ..progress import SILENT, Progress
from . import device as places
from .device_memory import memory_errors
from .encode import Encoded, Encoder
from .infer import logits_by_batch
from .model_cache import ModelCache
from .model_folder import folder_damage

WINDOW = 4096  # texts held, sorted by length and answered together; bounds the memory


class Answering(ABC):
    """A model that gives a row of numbers for a text.

    Attributes:
        width: numbers of a row.
        max_length: tokens read of a text; longer ones are cut.
        device, precision: where and how it computes; bfloat16 weights where the hardware has it.
        truncated: texts cut so far.
    """

    _doing: ClassVar[str]
    _unit: ClassVar[str] = "texts"

    def __init__(self, model: Any, encoder: Encoder, width: int) -> None:
        self._model = model
        self._encoder = encoder
        self._lock = threading.Lock()
        self.width = width
        self.max_length = encoder.max_length
        self.device = places.describe(model.device)
        self.precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
        self.truncated = 0

    @classmethod
    @abstractmethod
    def load(cls, model_dir: Path, *, precision: str | None = None) -> Self:
        """Load a Hugging Face folder."""

    @classmethod
    def cached(cls, model_dir: Path) -> Self:
        """As :meth:`load`, but a model used lately in this process is still warm."""
        with memory_errors("The model"):
            found: Self = _loaded(cls).get(cls, model_dir, cls.load)
        return found

    def answer_batches(
        self,
        batches: Iterable[Sequence[str | None]],
        progress: Progress = SILENT,
        total: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Answers to each batch of texts, float32 of shape (N, width), and which texts were cut, bool (N,).

        A missing or blank text has a row of NaN. Memory is that of one batch. Batches of some thousand texts
        waste least: texts are sorted by length within a batch, and the same text is read once.

        Args:
            batches: lists of texts.
            progress: is told about the texts answered.
            total: how many texts there are, where known.
            batch_size: most texts that the model reads at a time; by default tokens alone fill a batch.
        """
        with progress.task(self._doing, total=total, unit=self._unit) as task:
            for texts in batches:
                found = np.full((len(texts), self.width), np.nan, dtype=np.float32)
                cut = np.zeros(len(texts), dtype=bool)
                for start in range(0, len(texts), WINDOW):
                    window = texts[start : start + WINDOW]
                    part = slice(start, start + len(window))
                    self._window(window, batch_size, task, found[part], cut[part])
                yield found, cut

    def _window(
        self,
        texts: Sequence[str | None],
        batch_size: int | None,
        task: Any,
        found: np.ndarray,
        cut: np.ndarray,
    ) -> None:
        """Fill in ``found`` and ``cut`` for some texts."""
        number_of: dict[str, int] = {}
        numbers = np.full(len(texts), -1)
        for place, text in enumerate(texts):
            if text is not None and text.strip():
                numbers[place] = number_of.setdefault(text, len(number_of))
        given = numbers >= 0
        task.advance(int(len(texts) - given.sum()))
        if not number_of:
            return
        with self._lock:  # Transformers' tokenizers keep settings of the call at hand
            encoded = self._encoder.encode(self._readable(list(number_of)))
        times = np.bincount(numbers[given])
        outputs = np.empty((len(number_of), self.width), dtype=np.float32)
        for rows, values in logits_by_batch(self._model, encoded, self._encoder.pad_id, most_rows=batch_size):
            outputs[rows] = values
            task.advance(int(times[rows].sum()))
        refuse_nan(outputs)
        answers = self._answers(outputs, encoded, batch_size)
        found[given] = answers[numbers[given]]
        cut[given] = np.asarray(encoded.cut)[numbers[given]]
        self.truncated += int(cut.sum())

    def _readable(self, texts: list[str]) -> list[str]:
        """The texts as the model is given them."""
        return texts

    @abstractmethod
    def _answers(self, outputs: np.ndarray, encoded: Encoded, batch_size: int | None) -> np.ndarray:
        """The model's outputs (N, width) for N texts as answers (N, width)."""


def refuse_nan(outputs: np.ndarray) -> None:
    """Check that a model gives numbers for its texts, outputs of shape (N, width).

    Raises:
        WorkspaceError: it gives none for some.
    """
    wrong = int((~np.isfinite(outputs)).any(axis=1).sum())
    if wrong:
        raise WorkspaceError(
            f"The model gives no numbers for {wrong:,} of {len(outputs):,} texts: its weights are damaged.",
            hint="`thano doctor` names the file; BUILD MODEL trains the model again, and PROMOTE MODEL lets "
            "another version answer.",
        )


def no_model(folder: Path, kind: str) -> UnknownModel:
    """Why a folder cannot be loaded as a ``kind`` of model: the file that is missing or broken, if one is."""
    if wrong := folder_damage(folder):
        return UnknownModel(
            f"{wrong[0]} {wrong[1]}.",
            hint="`thano doctor --repair` lets another version answer where there is one; BUILD MODEL trains "
            "the model again.",
        )
    return UnknownModel(
        f"{folder} holds no complete {kind}.",
        hint="It needs config.json, model.safetensors and tokenizer files; build the model again.",
    )


def _loaded(kind: type) -> ModelCache[Any]:
    return _CACHES.setdefault(kind, ModelCache())


_CACHES: dict[type, ModelCache[Any]] = {}
