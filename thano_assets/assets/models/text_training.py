"""Classifiers of texts: from a snapshot of texts to a version's folder, figures and tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.trainers import Made, Settings, class_scores
from thano_assets.assets.models.training import Training, metrics_of, result_tags, settings_of
from thano_assets.assets.models.tuning import tuned, tuning_of, tuning_tags
from thano_assets.assets.runtime import Runtime
from thano_assets.learning.launch import wanted_processes
from thano_assets.learning.settings import CODE_VERSION
from thano_assets.sql.statements import TrainModel

if TYPE_CHECKING:
    import numpy as np

    from thano_assets.assets.models.training_sets import TrainingSet
    from thano_assets.resources.mlflow_run import BuildRun


class TextTrainer:
    """Classifiers of texts."""

    @property
    def code_version(self) -> str:
        """Of the trainer."""
        return CODE_VERSION

    def settings(self, statement: TrainModel) -> Settings:
        tuning_of(statement)  # says what it cannot search
        wanted_processes()  # likewise what cannot be launched
        return settings_of(statement)

    def columns(self, statement: TrainModel) -> dict[str, Any]:
        return {name: statement.options.value(name) for name in ("text_col", "label_col")}

    def tags(self, training_set: TrainingSet) -> dict[str, str]:
        return {}

    def train(
        self, training: Training, runtime: Runtime, folder: Path, build: BuildRun, *, checkpoints: bool
    ) -> Made:
        from thano_assets.learning import figures
        from thano_assets.learning.metrics import mistakes

        training = tuned(training, runtime, build, kept=checkpoints)
        result = training.run(runtime, folder, build.log_metrics, checkpoints=checkpoints)
        pictures = {"training curve": figures.training_curve(result.history)}
        facts = {}
        if result.rows_eval:
            facts["mistakes"] = mistakes(result.confusion, result.classes)
            pictures["confusion matrix"] = figures.confusion_matrix(result.confusion, result.classes)
        if training.tuning is not None and training.tuning.best is not None:
            pictures["trials"] = figures.tuning_trials(training.tuning)
        return Made(
            result.model_dir,
            {
                "classes": training.classes,
                "type": training.label_type,
                "text_col": training.statement.options.value("text_col"),
            },
            metrics_of(result),
            result_tags(training, result, runtime) | tuning_tags(training),
            pictures,
            facts=facts,
            settings=result.settings,
        )

    def scores(self, truth: list[Any], says: np.ndarray, classes: int) -> dict[str, float]:
        return class_scores(truth, says, classes)
