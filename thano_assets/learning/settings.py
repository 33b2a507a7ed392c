"""What a person may choose about a training; free of torch, so that a plan can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidOption

if TYPE_CHECKING:
    import numpy as np

CODE_VERSION = "4"  # of the trainer: raised when the same rows and settings would give another model
PRETRAINING_VERSION = (
    "1"  # of the pre-training: raised when the same texts and settings would give another base
)
TRAIN_MODES = ("full", "head")
#: Training rows that a search of settings needs at least: a third of them judges.
TUNING_ROWS = 30


@dataclass(frozen=True)
class TrainingSettings:
    """The choices of one training; ``None`` means "as the base's recipe has it".

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows of one optimiser step.
        learning_rate: peak rate of the uppermost layer (see :mod:`.recipes`).
        max_length: tokens of a text that are read, special tokens included.
        eval_fraction: share of the rows held out for evaluation, in ``[0, 1)``; 0 holds out none.
        seed: fixes the hold-out rows, the head's first weights and the order of the batches.
        early_stopping: epochs without a lower hold-out loss after which training stops; the best epoch's
            weights are kept. ``None`` trains all epochs.
        class_weight: ``'balanced'`` weighs each class by the inverse of its share of the training rows.
        train: ``'full'`` fine-tunes every weight, ``'head'`` trains the head on frozen embeddings.
        baseline: also score TF-IDF with logistic regression on the same hold-out rows.
        split: what is held out: ``'texts'``, with all rows of a text on one side, or ``'rows'``, as in
            versions that do not name it.
        calibrate: fit a temperature on the held-out rows, see :mod:`.calibration`.
    """

    epochs: int = 3
    batch_size: int = 16
    learning_rate: float | None = None
    max_length: int | None = None
    eval_fraction: float = 0.1
    seed: int = 42
    early_stopping: int | None = None
    class_weight: str | None = None
    train: str = "full"
    baseline: bool = True
    split: str = "texts"
    calibrate: bool = True

    def __post_init__(self) -> None:
        def check(ok: bool, name: str, allowed: str) -> None:
            if not ok:
                raise InvalidOption(
                    f"{name}={getattr(self, name)!r} is not allowed.", hint=f"It must be {allowed}."
                )

        check(self.epochs >= 1, "epochs", "at least 1")
        check(self.batch_size >= 1, "batch_size", "at least 1")
        check(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "greater than 0")
        check(self.max_length is None or self.max_length >= 4, "max_length", "at least 4 tokens")
        check(0 <= self.eval_fraction < 1, "eval_fraction", "at least 0 and less than 1")
        check(self.train in TRAIN_MODES, "train", "'full' or 'head'")
        check(self.early_stopping is None or self.early_stopping >= 1, "early_stopping", "at least 1 epoch")
        check(
            not (self.early_stopping and self.eval_fraction == 0),
            "early_stopping",
            "left out when eval_fraction=0: it needs held-out rows to judge by",
        )
        check(self.class_weight in (None, "balanced"), "class_weight", "'balanced'")

    def held_out(self, labels: np.ndarray, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows held out, see :func:`.holdout.hold_out`."""
        from .holdout import hold_out

        kept_together = texts if self.split == "texts" else None
        return hold_out(labels, self.eval_fraction, self.seed, kept_together)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PretrainingSettings:
    """The choices of one pre-training; ``None`` means "as the objective has it".

    Attributes:
        epochs: passes over the texts.
        batch_size: windows of one optimiser step.
        learning_rate: peak rate of the encoder.
        max_length: tokens of a window, special tokens included.
        eval_fraction: share of the texts held out to judge by, in ``[0, 1)``.
        seed: fixes the held-out texts, masks, draws and the order of the batches.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float | None = None
    max_length: int | None = None
    eval_fraction: float = 0.01
    seed: int = 42

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TuningSettings:
    """How settings are searched before a training.

    Attributes:
        trials: how many are tried.
        searched: fields of :class:`TrainingSettings` to search, of ``learning_rate``, ``epochs`` and
            ``max_length``; the others stay as they are.
    """

    trials: int
    searched: tuple[str, ...]
