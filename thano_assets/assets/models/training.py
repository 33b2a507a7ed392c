"""A training of a model, and what it says of the version that it makes."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.encoder_features import EncoderFeatures
from thano_assets.assets.models.labels import classes_of
from thano_assets.assets.models.trainers import Made, Settings, Trainer, computed_tags
from thano_assets.assets.models.training_sets import TrainingSet
from thano_assets.assets.runtime import Runtime
from thano_assets.learning.model_folder import weights_digest
from thano_assets.learning.settings import TrainingSettings
from thano_assets.sql.grammar import CHAMPION
from thano_assets.sql.statements import TrainModel

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from thano_assets.assets.models.pretrained_models import Pretraining
    from thano_assets.learning.train import TrainingResult
    from thano_assets.learning.tune import Tuning
    from thano_assets.resources.mlflow_run import BuildRun
    from thano_assets.resources.registry import ModelVersion
    from thano_assets.resources.resolved_base import ResolvedBase

_CHUNK = 1 << 20
# Texts whose predictions are kept as a digest where a training holds no rows out.
_DIGEST_ROWS = 256
_DIGEST_DECIMALS = 4


@dataclass(frozen=True)
class Training:
    """Everything that a version is trained from.

    Attributes:
        name: Of the model.
        statement: Has the options.
        training_set: The rows.
        base: The base model, also where the weights of ``parent`` are the start.
        parent: The version that the training goes on from.
        fingerprint: Of all this: two trainings with the same one are the same.
        trainer: What trains it.
        tuning: What a search found, where the statement asks for one and it is done.
        again: The version that this training repeats.
    """

    name: str
    statement: TrainModel
    training_set: TrainingSet
    base: ResolvedBase
    parent: ModelVersion | None
    fingerprint: str
    trainer: Trainer
    tuning: Tuning | None = None
    again: ModelVersion | None = None

    @property
    def settings(self) -> Settings:
        """The statement's options as the trainer takes them, with what a search chose in them."""
        settings = self.trainer.settings(self.statement) if self.tuning is None else self.tuning.settings
        if self.again is not None and isinstance(
            settings, TrainingSettings
        ):  # its rows were split in its way
            said = self.again.params
            calibrate = said.get("calibrate") == "True"
            return replace(settings, split=said.get("split", "rows"), calibrate=calibrate)
        return settings

    @property
    def classes(self) -> list[str]:
        """The labels in the order of the model's outputs; a child keeps its parent's order."""
        return self.training_set.classes if self.parent is None else self.parent.classes

    @property
    def label_type(self) -> str:
        """The DuckDB type of the classes."""
        return self.training_set.label_type if self.parent is None else self.parent.label_type

    def texts_and_labels(self, runtime: Runtime) -> tuple[pa.ChunkedArray, list[str]]:
        """The texts to train on, and the class of each."""
        import pyarrow.parquet as pq

        rows = pq.read_table(self.training_set.snapshot(runtime.workspace))
        names = classes_of(
            self.training_set.classes, self.training_set.label_type, self.classes, self.label_type
        )
        return rows.column("text"), [names[label] for label in rows.column("label").to_pylist()]

    def kept(self, runtime: Runtime) -> Path:
        """The folder where its states are kept while it goes on, and the trials of its search."""
        return runtime.workspace.models_cache / "checkpoints" / self.fingerprint

    def made(self, runtime: Runtime, folder: Path, build: BuildRun, *, checkpoints: bool) -> Made:
        """Train as the statement's kind of model is trained; the model's folder is made at ``folder``."""
        return self.trainer.train(self, runtime, folder, build, checkpoints=checkpoints)

    def run(
        self,
        runtime: Runtime,
        folder: Path,
        on_metrics: Callable[[dict[str, float], int], None],
        *,
        checkpoints: bool = True,
    ) -> TrainingResult:
        """Train a classifier of texts; the model's folder is made at ``folder``."""
        from thano_assets.learning.train import train

        texts, labels = self.texts_and_labels(runtime)
        settings = self.settings
        assert isinstance(settings, TrainingSettings)
        return train(
            texts,
            labels,
            self.classes,
            self.base,
            settings,
            output_dir=folder,
            checkpoint_dir=self.kept(runtime) if checkpoints else None,
            progress=runtime.progress,
            on_metrics=on_metrics,
            init_dir=self.parent.path if self.parent is not None else None,
            features=self.features(runtime),
        )

    def features(self, runtime: Runtime) -> EncoderFeatures:
        """What the encoder that it starts from gave for texts before."""
        return EncoderFeatures(self.parent or self.base.identity, runtime.workspace, runtime.progress)


_again: ContextVar[Training | Pretraining | None] = ContextVar("thano_training_again", default=None)


def asked_again() -> Training | Pretraining | None:
    """The training that :func:`training_again` asks for in this context."""
    return _again.get()


@contextmanager
def training_again(training: Training | Pretraining) -> Iterator[None]:
    """In this context a model's materialization does ``training``, whatever the catalog says now."""
    token = _again.set(training)
    try:
        yield
    finally:
        _again.reset(token)


def settings_of(statement: TrainModel) -> TrainingSettings:
    """The training settings that the statement's options ask for."""
    value = statement.options.value
    return TrainingSettings(
        **text_settings(statement),
        early_stopping=value("early_stopping"),
        class_weight=value("class_weight"),
        train=value("train"),
        baseline=value("baseline"),
    )


def text_settings(statement: TrainModel) -> dict[str, Any]:
    """What the options say of any training on texts, by the names of the trainers' settings."""
    names = ("batch_size", "learning_rate", "max_length", "eval_fraction", "seed")
    value = statement.options.value
    return {"epochs": value("max_epochs")} | {name: value(name) for name in names}


def kept_version(name: str, fingerprint: str, runtime: Runtime) -> ModelVersion | None:
    """A complete version that the very same made: the one that answers, else the newest."""
    found = [
        version
        for version in runtime.registry.versions(name)
        if version.tags.get("thano.fingerprint") == fingerprint and (version.path / "config.json").is_file()
    ]
    return max(found, key=lambda version: (CHAMPION in version.aliases, version.version), default=None)


def result_tags(training: Training, result: TrainingResult, runtime: Runtime) -> dict[str, str]:
    """What a training gave, as tags of its version: the digests that a replay compares, and where it ran."""
    libraries = dict(result.library_versions)
    if training.tuning is not None:
        libraries["optuna"] = importlib.metadata.version("optuna")
    return {
        "thano.data_version": weights_digest(result.model_dir),
        "thano.predictions_digest": _predictions_digest(training, result, runtime),
        "thano.max_length": str(result.max_length),
        "thano.temperature": f"{result.temperature:.4f}",
        **computed_tags(result.rows_train, result.rows_eval, result.device, result.precision, libraries),
    }


def metrics_of(result: TrainingResult) -> dict[str, float]:
    """The final figures of a training, by name."""
    metrics = {name: float(value) for name, value in result.metrics.items() if value is not None}
    if result.baseline_accuracy is not None:
        metrics["baseline_accuracy"] = result.baseline_accuracy
    if result.majority_accuracy is not None:
        metrics["majority_accuracy"] = result.majority_accuracy
    return metrics


def _predictions_digest(training: Training, result: TrainingResult, runtime: Runtime) -> str:
    """Digest of labels and probabilities (to four decimals) of the held-out rows, else of the first rows."""
    import numpy as np

    proba: np.ndarray = result.held_out
    if not len(proba):
        import pyarrow.parquet as pq

        from thano_assets.learning.predict import Predictor

        rows = pq.read_table(training.training_set.snapshot(runtime.workspace), columns=["text"])
        proba = Predictor.load(result.model_dir).predict(rows.slice(0, _DIGEST_ROWS).column(0).to_pylist())
    digest = hashlib.sha256(np.ascontiguousarray(proba.argmax(axis=1), dtype=np.int64).tobytes())
    rounded = np.rint(proba.astype(np.float64) * 10**_DIGEST_DECIMALS)
    digest.update(np.nan_to_num(rounded, nan=-1.0).astype(np.int64).tobytes())
    return digest.hexdigest()[:32]
