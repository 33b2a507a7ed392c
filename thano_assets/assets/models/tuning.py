"""OPTIONS (tune=N): the search before a training, its trials as nested runs of MLflow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thano_assets.assets.models.training import Training
from thano_assets.assets.runtime import Runtime
from thano_assets.errors import InvalidOption
from thano_assets.learning.settings import TrainingSettings, TuningSettings
from thano_assets.sql.statements import FitModel, TrainModel

if TYPE_CHECKING:
    from thano_assets.assets.models.pretrained_models import Pretraining
    from thano_assets.learning.tune import Trial, TrialRun, Tuning
    from thano_assets.resources.mlflow_run import BuildRun

#: Tag of a version: the options that the search chose, as they stand in a statement.
CHOSEN_TAG = "thano.tuned"
#: Tag of a nested run: ``complete``, ``pruned`` or ``failed``.
STATE_TAG = "thano.trial_state"

# Options that can be searched, with the trainer's names.
_SEARCHED = {"learning_rate": "learning_rate", "max_epochs": "epochs", "max_length": "max_length"}
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}  # as MLflow's own Optuna storage


def tuning_of(statement: TrainModel) -> TuningSettings | None:
    """The search that the statement's options ask for; ``None`` where they ask for none.

    What OPTIONS gives is not searched. A model that FIT MODEL makes reads as many tokens as its parent, and
    with ``early_stopping`` each training finds its number of epochs by itself.

    Raises:
        InvalidOption: nothing is left to search.
    """
    options = statement.options
    trials = options.get("tune")
    if trials is None:
        return None
    place = options.value_span("tune")
    fixed = {option: "is given" for option in _SEARCHED if options.get(option) is not None}
    if isinstance(statement, FitModel):
        fixed.setdefault("max_length", "is the parent's")
    if options.get("early_stopping") is not None:
        fixed.setdefault("max_epochs", "is left to early_stopping")
    if options.value("objective") != "classification":
        raise InvalidOption(
            "tune searches the settings of a classifier; this objective has none to judge by.",
            hint="Leave out tune.",
        ).at(statement.source, place.start, len(place))
    searched = tuple(name for option, name in _SEARCHED.items() if option not in fixed)
    if not searched:
        told = ", ".join(f"{option} {why}" for option, why in fixed.items())
        raise InvalidOption(
            f"tune={trials} has nothing to search: {told}.", hint="Leave out one of them, or tune."
        ).at(statement.source, place.start, len(place))
    return TuningSettings(trials, searched)


def parameters(training: Training | Pretraining) -> dict[str, Any]:
    """Settings for MLflow at the start of a run; those that are searched come when they are found."""
    settings = training.settings.as_dict()
    wanted = tuning_of(training.statement)
    if wanted is None:
        return settings
    return {"tune": wanted.trials} | {k: v for k, v in settings.items() if k not in wanted.searched}


def tuned(training: Training, runtime: Runtime, build: BuildRun, *, kept: bool = True) -> Training:
    """``training`` with the settings that its search found; itself where it asks for no search.

    Args:
        training: As the statement says.
        runtime: The workspace's resources.
        build: The run that the trials are nested in.
        kept: Whether a search that is stopped can be gone on with.

    Raises:
        TrainingDataError: too few rows to judge by, or no trial could be trained.
    """
    wanted = tuning_of(training.statement)
    if wanted is None:
        return training
    from thano_assets.learning.tune import search

    texts, labels = training.texts_and_labels(runtime)
    settings = training.settings
    assert isinstance(settings, TrainingSettings)
    tuning = search(
        texts,
        labels,
        training.classes,
        training.base,
        settings,
        wanted,
        folder=training.kept(runtime) if kept else None,
        identity=training.fingerprint,
        progress=runtime.progress,
        runs=_NestedRuns(build),
        init_dir=training.parent.path if training.parent is not None else None,
        features=training.features(runtime),
    )
    chosen_settings = tuning.settings.as_dict()
    build.log_params({name: chosen_settings[name] for name in wanted.searched})
    if tuning.best is not None:
        build.client.set_tag(build.run_id, CHOSEN_TAG, chosen(tuning))
        build.log_text("trials.csv", _csv(tuning))
    return replace(training, tuning=tuning)


def chosen(tuning: Tuning) -> str:
    """What the search chose, as it stands in OPTIONS: the same training without the search."""
    found = {option: tuning.chosen[name] for option, name in _SEARCHED.items() if name in tuning.chosen}
    return ", ".join(f"{option}={value!r}" for option, value in found.items())


def tuning_tags(training: Training) -> dict[str, str]:
    """What a search found, as tags of the version."""
    tuning = training.tuning
    if tuning is None or tuning.best is None:
        return {}
    return {CHOSEN_TAG: chosen(tuning), "thano.trials": f"{tuning.best.number} of {len(tuning.trials)}"}


class _NestedRuns:
    """Trials as MLflow runs under the build's."""

    def __init__(self, build: BuildRun) -> None:
        self._build = build

    @contextmanager
    def start(self, number: int, params: Mapping[str, Any]) -> Iterator[TrialRun]:
        with self._build.nested(f"trial {number}", params, {"thano.trial": str(number)}) as run:
            yield _NestedRun(run)

    def adopt(self, trial: Trial) -> None:
        self._build.adopt(trial.run_id, _STATUS[trial.state])


class _NestedRun:
    def __init__(self, run: BuildRun) -> None:
        self._run = run
        self.run_id = run.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._run.log_metrics(metrics, step)

    def end(self, trial: Trial) -> None:
        tags = {STATE_TAG: trial.state} | ({"thano.trial_error": trial.reason} if trial.reason else {})
        self._run.finish(_STATUS[trial.state], trial.metrics, tags)


def _csv(tuning: Tuning) -> str:
    from pyarrow import csv

    data = io.BytesIO()
    csv.write_csv(tuning.table(), data)
    return data.getvalue().decode()
