"""Which settings a search may try: around the base's recipe, and no further than the rows reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ..progress import Progress
from .base_model import BaseModel
from .encode import Encoder
from .settings import TrainingSettings, TuningSettings
from .train import recipe_and_encoder

# How far from the recipe's rate; a head alone is sure of less.
_RATE_FACTOR = {"full": 4.0, "head": 10.0}
# Few rows want more epochs (Mosbach et al. 2021): up to what makes so many rows of training, within bounds.
_ROWS_SEEN, _LEAST_EPOCHS, _MOST_EPOCHS, _MOST_HEAD_EPOCHS = 10_000, 3, 10, 20
_LENGTH_PERCENTILES = (50, 75, 90, 98)
_LENGTH_STEP = 32
_SAMPLED, _LONGEST = 2_000, 50  # texts that are counted: so many of the first, so many of the longest
_DIGITS = 3  # of a learning rate, so that a person can write it down


@dataclass(frozen=True)
class Space:
    """The settings that trials may have; a dimension that is not searched is ``None``.

    Attributes:
        start: what a training without a search would have: learning_rate, epochs and max_length.
        learning_rate: least and greatest, searched on a logarithmic scale.
        epochs: least and greatest.
        lengths: values of ``max_length``, ascending.
    """

    start: dict[str, Any]
    learning_rate: tuple[float, float] | None
    epochs: tuple[int, int] | None
    lengths: tuple[int, ...] | None

    def distributions(self) -> dict[str, BaseDistribution]:
        """The dimensions as Optuna knows them, by field of :class:`.TrainingSettings`."""
        found: dict[str, BaseDistribution] = {}
        if self.learning_rate is not None:
            found["learning_rate"] = FloatDistribution(*self.learning_rate, log=True)
        if self.epochs is not None:
            found["epochs"] = IntDistribution(*self.epochs)
        if self.lengths is not None:
            found["max_length"] = CategoricalDistribution(self.lengths)
        return found

    @property
    def size(self) -> int | None:
        """How many settings there are; ``None`` where the rate is searched, which has no end of values."""
        if self.learning_rate is not None:
            return None
        epochs = self.epochs[1] - self.epochs[0] + 1 if self.epochs is not None else 1
        return epochs * len(self.lengths or (0,))

    def beginning(self) -> dict[str, Any]:
        """The recipe's own settings in the dimensions that are searched."""
        return {name: self.start[name] for name in self.distributions()}

    def taken(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that stand for Optuna's suggestion: rates of three digits."""
        found = dict(suggested)
        if "learning_rate" in found:
            found["learning_rate"] = float(f"{found['learning_rate']:.{_DIGITS}g}")
        return found

    def describe(self) -> str:
        """What is searched, in words."""
        parts = []
        if self.learning_rate is not None:
            parts.append(f"learning rate {rate(self.learning_rate[0])} to {rate(self.learning_rate[1])}")
        if self.epochs is not None:
            parts.append(f"{self.epochs[0]} to {self.epochs[1]} epochs")
        if self.lengths is not None:
            *others, last = map(str, self.lengths)
            parts.append(f"{', '.join(others)} or {last} tokens")
        return ", ".join(parts)


def space_of(
    texts: Sequence[str],
    base: BaseModel,
    settings: TrainingSettings,
    wanted: TuningSettings,
    init_dir: Any,
    progress: Progress,
) -> Space:
    """The settings that are worth trying for these training rows.

    Args:
        texts: of the rows that the final model is trained on.
        base: the base model.
        settings: the user's choices; what ``wanted`` searches is left open there.
        wanted: what to search.
        init_dir: the model that the training goes on from, if any.
        progress: told what is fetched.
    """
    recipe, encoder, most = recipe_and_encoder(base, settings, init_dir, progress)
    rates = epochs = lengths = None
    if "learning_rate" in wanted.searched:
        factor = _RATE_FACTOR[settings.train]
        rates = (recipe.learning_rate / factor, min(recipe.learning_rate * factor, 1.0))
    if "epochs" in wanted.searched:
        bound = _MOST_HEAD_EPOCHS if settings.train == "head" else _MOST_EPOCHS
        fitting = bound if settings.train == "head" else _ROWS_SEEN // len(texts)
        epochs = (1, max(settings.epochs, min(bound, max(_LEAST_EPOCHS, fitting))))
    if "max_length" in wanted.searched:
        lengths = _lengths(texts, encoder, most)
    start = {
        "learning_rate": recipe.learning_rate,
        "epochs": settings.epochs,
        "max_length": encoder.max_length,
    }
    return Space(start, rates, epochs, lengths)


def _lengths(texts: Sequence[str], encoder: Encoder, most: int) -> tuple[int, ...] | None:
    """Percentiles of the texts' tokens and the recipe's own length; ``None`` where all read the same."""
    whole = Encoder(encoder.tokenizer, most)
    longest = sorted(texts, key=len)[-_LONGEST:]
    # Training rows stand in an order without meaning, so the first are a sample.
    counts = whole.encode(texts[:_SAMPLED]).lengths
    reach = int(max(counts.max(), whole.encode(longest).lengths.max()))
    own = encoder.max_length
    found = {
        min(-(-int(np.percentile(counts, share)) // _LENGTH_STEP) * _LENGTH_STEP, most)
        for share in _LENGTH_PERCENTILES
    }
    # What reads all of every text is as good as the recipe's own length where that does too.
    wanted = {length for length in found if length < reach or own < reach}
    values = tuple(sorted(wanted | {own}))
    return values if len(values) > 1 else None


def rate(value: float) -> str:
    """A learning rate as people write it: ``5e-5``, ``1.25e-4``."""
    mantissa, exponent = f"{value:.{_DIGITS - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
