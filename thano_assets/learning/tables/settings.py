"""What a person may choose about the training of a model of tables; free of any library."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CODE_VERSION = "2"  # of the trainer: raised when the same rows and settings would give another model


@dataclass(frozen=True)
class TableSettings:
    """The choices of one training.

    Attributes:
        task: ``'classification'`` or ``'regression'``.
        impute_type: ``'simple'`` or ``'iterative'``.
        outlier_method: ``'knn'``, ``'iso'``, ``'pca'``, or ``None`` to keep all rows.
        time_budget: seconds after which no setting is tried any more; ``None`` for no limit.
        max_trials: settings to try.
        eval_fraction: share of the rows held out for evaluation, in ``[0, 1)``.
        seed: fixes the hold-out rows, the folds, the search and the models.
        class_weight: ``'balanced'`` weighs each class by the inverse of its share of the training rows.
    """

    task: str
    impute_type: str = "simple"
    outlier_method: str | None = None
    time_budget: int | None = 300
    max_trials: int = 40
    eval_fraction: float = 0.1
    seed: int = 42
    class_weight: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)
