"""How a model of one purpose is trained and judged: of texts here, of tables in :mod:`.table_training`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from thano_assets.assets.runtime import Runtime
from thano_assets.sql.statements import TrainModel

if TYPE_CHECKING:
    import numpy as np

    from thano_assets.assets.models.training import Training
    from thano_assets.assets.models.training_sets import TrainingSet
    from thano_assets.resources.mlflow_run import BuildRun


@dataclass(frozen=True)
class Made:
    """What a training gave, whatever was trained.

    Attributes:
        model_dir: The model's folder.
        labels: What ``labels.json`` keeps: ``classes`` and ``type``, and of a table what it reads.
        metrics: Final figures, by name.
        tags: Of the version: the digests that a replay compares, what was trained on and where.
        pictures: PNG, by label.
        texts: Files for the run in MLflow, by name.
        facts: For the asset's page.
        warnings: Sentences about what the person may want to change; they were told already.
        settings: What the training ran with, defaults resolved.
    """

    model_dir: Path
    labels: dict[str, Any]
    metrics: dict[str, float]
    tags: dict[str, str]
    pictures: dict[str, bytes]
    texts: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


class Settings(Protocol):
    """The choices of a training."""

    @property
    def eval_fraction(self) -> float:
        """Share of the rows that is held out."""

    @property
    def seed(self) -> int:
        """Which rows."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""


class Trainer(Protocol):
    """What differs between purposes."""

    @property
    def code_version(self) -> str:
        """Raised when the same rows and settings would give another model."""

    def settings(self, statement: TrainModel) -> Settings:
        """The statement's options as the trainer takes them."""

    def columns(self, statement: TrainModel) -> dict[str, Any]:
        """The options that say what is read, for the run's parameters."""

    def tags(self, training_set: TrainingSet) -> dict[str, str]:
        """Tags of the run, known before the training."""

    def train(
        self, training: Training, runtime: Runtime, folder: Path, build: BuildRun, *, checkpoints: bool
    ) -> Made:
        """Train; the model's folder is made at ``folder``, and figures go to the run as they come."""

    def scores(self, truth: list[Any], says: np.ndarray, classes: int) -> dict[str, float]:
        """What ``promote_if`` compares.

        Args:
            truth: class indices or numbers.
            says: probabilities, shape (N, C), or predicted numbers, shape (N, 1).
            classes: how many of the columns macro averages are over.
        """


def computed_tags(
    rows_train: int, rows_eval: int, device: str, precision: str, libraries: Mapping[str, str]
) -> dict[str, str]:
    """What the version of any training says of how it was computed.

    Args:
        rows_train: Rows that it learnt from.
        rows_eval: Rows that were held out.
        device: Where it was computed.
        precision: How.
        libraries: Versions of the libraries that computed it, by name.
    """
    return {
        "thano.rows_train": str(rows_train),
        "thano.rows_eval": str(rows_eval),
        "thano.device": device,
        "thano.precision": precision,
        "thano.libraries": ", ".join(f"{name} {text}" for name, text in libraries.items()),
    }


def class_scores(truth: list[Any], says: np.ndarray, classes: int) -> dict[str, float]:
    """See :meth:`Trainer.scores`."""
    import numpy as np

    from thano_assets.learning import metrics

    known = ~np.isnan(says[:, 0])  # what is blank to the model and not to SQL has no answer
    places, says = np.asarray(truth, dtype=np.int64)[known], says[known]
    return metrics.scores(places, says, classes) | {"roc_auc": metrics.roc_auc(places, says[:, :classes])}
