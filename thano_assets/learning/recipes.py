"""How a base model is best fine-tuned: settings by architecture and size, never by data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from .settings import TrainingSettings


@dataclass(frozen=True)
class Recipe:
    """Everything about a fine-tuning that a person seldom sets.

    Attributes:
        learning_rate: peak rate of the uppermost encoder layer (AdamW).
        layer_decay: factor of the rate from one layer to the one below it.
        head_rate: factor of the rate in the classification head.
        warmup: share of the steps over which the rate rises.
        weight_decay: decoupled decay of matrices; vectors have none.
        adam_epsilon: AdamW's epsilon.
        clip: largest norm of a step's gradient.
        dropout: rate inside the encoder and before the head.
        max_length: tokens read of a text, special tokens included.
        head_share: share of those that comes from the start of a longer text; the rest is its end.
        falling: whether the rate falls linearly to 0 after the warm-up; otherwise it stays.
        average: share of the steps, the last ones, of which the weights are averaged; 0 takes the last.
    """

    learning_rate: float
    layer_decay: float = 1.0
    head_rate: float = 1.0
    warmup: float = 0.1
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-6
    clip: float = 1.0
    dropout: float = 0.1
    max_length: int = 512
    head_share: float = 0.25
    falling: bool = True
    average: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


# ELECTRA's authors' settings (Clark et al. 2020, appendix B): rates by size, no weight decay on GLUE.
_ELECTRA = Recipe(3e-4, layer_decay=0.8, weight_decay=0.0)
_ELECTRA_BASE = replace(_ELECTRA, learning_rate=1e-4)
_ELECTRA_LARGE = replace(_ELECTRA, learning_rate=5e-5, layer_decay=0.9)

# Narrow distilled encoders (MiniLM, multilingual-e5-small): see docs/decisions/training-recipe.md.
_SMALL_DISTILLED = Recipe(5e-5, head_rate=10.0, dropout=0.0, falling=False, average=0.3)

# BERT's authors' settings (Devlin et al. 2019, appendix A.3), and what serves most encoders of its size.
_BERT = Recipe(3e-5)
_BERT_LARGE = replace(_BERT, learning_rate=2e-5)

# Frozen embeddings: only a small head is trained, on features computed once.
_HEAD = Recipe(1e-3, weight_decay=0.01, dropout=0.0)


def recipe_for(config: Any, settings: TrainingSettings) -> Recipe:
    """The recipe of a base model with Transformers configuration ``config``, the user's choices put in."""
    hidden = int(getattr(config, "hidden_size", None) or getattr(config, "dim", None) or 768)
    if settings.train == "head":
        recipe = _HEAD
    elif hidden <= 512 and getattr(config, "embedding_size", hidden) == hidden:
        recipe = _SMALL_DISTILLED
    elif config.model_type == "electra":
        recipe = _ELECTRA if hidden <= 256 else _ELECTRA_BASE if hidden <= 768 else _ELECTRA_LARGE
    else:
        recipe = _BERT if hidden <= 768 else _BERT_LARGE
    if settings.learning_rate is not None:
        recipe = replace(recipe, learning_rate=settings.learning_rate)
    if settings.max_length is not None:
        recipe = replace(recipe, max_length=settings.max_length)
    return recipe
