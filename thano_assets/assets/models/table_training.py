"""Models of tables: from a snapshot of columns to a version's folder, figures and tags."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.trainers import Made, Settings, class_scores, computed_tags
from thano_assets.assets.runtime import Runtime
from thano_assets.learning.tables.settings import CODE_VERSION, TableSettings
from thano_assets.results import counted
from thano_assets.sql.statements import TrainModel

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from thano_assets.assets.models.training import Training
    from thano_assets.assets.models.training_sets import TrainingSet
    from thano_assets.learning.tables.train import TableResult
    from thano_assets.resources.mlflow_run import BuildRun

#: Tag of a version: the trials that its search made.
TRIALS_TAG = "thano.trials"
_DECIMALS = 4
_SHOWN_COLUMNS = 20


class TableTrainer:
    """Classifiers and regressors of tables."""

    def __init__(self, task: str) -> None:
        self.task = task

    @property
    def code_version(self) -> str:
        """Of the trainer."""
        return f"table {CODE_VERSION}"

    def settings(self, statement: TrainModel) -> Settings:
        value = statement.options.value
        return TableSettings(
            self.task,
            impute_type=value("impute_type"),
            outlier_method=value("outlier_method"),
            time_budget=value("time_left_for_this_task"),
            max_trials=value("max_trials"),
            eval_fraction=value("eval_fraction"),
            seed=value("seed"),
            class_weight=value("class_weight") if self.task == "classification" else None,
        )

    def columns(self, statement: TrainModel) -> dict[str, Any]:
        names = ("label_col", "features_to_drop", "datetime_attribs")
        given = {name: statement.options.value(name) for name in names}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def tags(self, training_set: TrainingSet) -> dict[str, str]:
        return {"thano.task": self.task}

    def train(
        self, training: Training, runtime: Runtime, folder: Path, build: BuildRun, *, checkpoints: bool
    ) -> Made:

        import duckdb

        from thano_assets.learning.tables.train import left_out_sentence, train

        training_set = training.training_set
        with duckdb.connect() as connection:
            rows: pa.Table = connection.sql(
                training_set.rows_sql(training_set.snapshot(runtime.workspace))
            ).to_arrow_table()
        settings = training.settings
        assert isinstance(settings, TableSettings)
        done = training.again.tags.get(TRIALS_TAG, "") if training.again is not None else ""
        if done.isdigit():  # the search of then, trial by trial, however long it takes now
            settings = replace(settings, max_trials=int(done), time_budget=None)
        result = train(
            rows,
            training_set.label,
            training_set.features,
            training_set.classes,
            settings,
            output_dir=folder,
            progress=runtime.progress,
            on_metrics=build.log_metrics,
        )
        runtime.progress.message(_chosen(result))
        return Made(
            result.model_dir,
            self._labels(training_set, result),
            result.metrics,
            self._tags(result),
            self._pictures(result),
            texts={
                "trials.json": _trials(result),
                "importance.json": json.dumps(dict(result.importance), ensure_ascii=False, indent=1),
            },
            facts={
                "learner": result.learner,
                "settings": json.dumps(result.found.best.params),
                "trials": len(result.found.trials),
                "columns that matter most": ", ".join(
                    f"{name} {rise:.3g}" for name, rise in result.importance[:8]
                ),
            },
            warnings=[left_out_sentence(name, reason) for name, reason in result.left_out.items()],
        )

    def scores(self, truth: list[Any], says: np.ndarray, classes: int) -> dict[str, float]:
        if self.task == "classification":
            return class_scores(truth, says, classes)
        import numpy as np

        from thano_assets.learning.tables.report import regression_scores

        return regression_scores(np.asarray(truth, dtype=np.float64), says[:, 0])

    def _labels(self, training_set: TrainingSet, result: TableResult) -> dict[str, Any]:
        return {
            "classes": training_set.classes,
            "type": training_set.label_type,
            "task": self.task,
            "target": training_set.label_col,
            "features": result.features,
        }

    def _tags(self, result: TableResult) -> dict[str, str]:
        return {
            "thano.task": self.task,
            "thano.data_version": result.digest,
            "thano.predictions_digest": _predictions_digest(result),
            **computed_tags(result.rows_train, result.rows_eval, "cpu", "float32", result.library_versions),
            "thano.outliers": str(result.outliers),
            "thano.learner": result.found.best.learner,
            "thano.learner_params": json.dumps(result.found.best.params),
            TRIALS_TAG: str(len(result.found.trials)),
            "thano.cut_short": str(result.found.cut_short),
        }

    def _pictures(self, result: TableResult) -> dict[str, bytes]:
        from thano_assets.learning.tables import report

        regression = self.task == "regression"
        loss = "RMSE" if regression else "cross-entropy (nats)"
        pictures = {
            "search": report.search_curve(result.found.trials, loss),
            "importance": report.importances(result.importance, loss),
        }
        if result.rows_eval and regression:
            pictures["residuals"] = report.residuals(result.truth, result.held_out[:, 0])
        elif result.rows_eval:
            from thano_assets.learning import metrics
            from thano_assets.learning.figures import confusion_matrix

            counts = metrics.confusion(result.truth, result.held_out)
            pictures["confusion matrix"] = confusion_matrix(counts, result.classes)
        return pictures


def _chosen(result: TableResult) -> str:
    found = result.found
    told = f"Best of {counted(len(found.trials), 'trial')}: {result.learner}"
    return told + (", when the time was up" if found.cut_short else "")


def _trials(result: TableResult) -> str:
    """The trials as MLflow shows tables."""
    columns = ["trial", "learner", "loss", "best_loss", "seconds", "settings", "error"]
    rows = [
        [
            one.number,
            one.learner,
            one.loss,
            one.best,
            round(one.seconds, 3),
            json.dumps(one.params),
            one.error,
        ]
        for one in result.found.trials
    ]
    return json.dumps({"columns": columns, "data": rows}, ensure_ascii=False)


def _predictions_digest(result: TableResult) -> str:
    """Digest of what is said of the held-out rows, to some decimals; empty where none were held out."""
    import numpy as np

    rounded = np.round(result.held_out.astype(np.float64), _DECIMALS) + 0.0
    return hashlib.sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest()[:32]
