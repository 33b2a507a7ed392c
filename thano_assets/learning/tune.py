"""A search for the settings of a training: trials on a part of the training rows, judged on the rest.

Optuna proposes (tree-structured Parzen estimator) and prunes; the trials are ordinary trainings. The rows
that judge the final model are set aside before, so its figure is none that was searched for.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..errors import TrainingDataError
from ..progress import Progress, Task
from ..system import write_atomically
from .base_model import BaseModel
from .frozen_encoder import FeatureCache
from .holdout import judging_share
from .metrics import class_indices
from .search_space import Space, rate, space_of
from .settings import TUNING_ROWS, TrainingSettings, TuningSettings
from .train import train
from .transformers_logging import quiet_transformers

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"

_CODE = 1  # raised when kept trials of the code before can no longer be gone on with
_KEPT = "trials.json"
_STARTUP_TRIALS = 4  # drawn at random before the estimator proposes; a pruner wants so many to compare with
# What a setting can do to a training; anything else that is raised would be raised in every trial.
_OF_SETTINGS = (RuntimeError, ArithmeticError, MemoryError, ValueError)


@dataclass(frozen=True)
class Trial:
    """One training of a search that has ended.

    Attributes:
        number: from 1.
        params: what it was trained with: learning_rate, epochs and max_length.
        suggested: the searched dimensions as Optuna proposed them.
        state: ``'complete'``, ``'pruned'`` or ``'failed'``.
        objective: what the search maximises (see :func:`objective`); ``None`` unless it is complete.
        metrics: figures on the judging rows, as far as it came.
        course: the objective at the ends of epochs, the last one aside.
        seconds: wall time.
        reason: why it failed.
        run_id: of whoever records the trials.
    """

    number: int
    params: dict[str, Any]
    suggested: dict[str, Any]
    state: str
    objective: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    course: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    run_id: str = ""

    def frozen(self, space: Space) -> FrozenTrial:
        """The trial as Optuna keeps it; a failed one counts as pruned at once, so the like is avoided."""
        complete = self.state == COMPLETE
        return create_trial(
            state=TrialState.COMPLETE if complete else TrialState.PRUNED,
            value=self.objective if complete else None,
            params=self.suggested,
            distributions=space.distributions(),
            intermediate_values=self.course,
        )


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        settings: for the final training: the user's, the best trial's put in.
        chosen: the values that were searched, by field of :class:`.TrainingSettings`.
        trials: all, in order.
        best: the trial that won; ``None`` where there was nothing to search.
        score: the figure that trials were compared by.
        rows_train, rows_judged: rows of a trial's training and of its judgement.
    """

    settings: TrainingSettings
    chosen: dict[str, Any]
    trials: list[Trial]
    best: Trial | None
    score: str
    rows_train: int
    rows_judged: int

    def table(self) -> pa.Table:
        """A row for each trial."""
        names = ("learning_rate", "epochs", "max_length")
        figures = ("accuracy", "f1_macro", "loss")
        return pa.table(
            {
                "trial": pa.array([trial.number for trial in self.trials], pa.int64()),
                "state": pa.array([trial.state for trial in self.trials], pa.string()),
                **{name: pa.array([trial.params[name] for trial in self.trials]) for name in names},
                **{
                    name: pa.array([trial.metrics.get(name) for trial in self.trials], pa.float64())
                    for name in figures
                },
                "seconds": pa.array([round(trial.seconds, 2) for trial in self.trials], pa.float64()),
                "best": pa.array([trial is self.best for trial in self.trials], pa.bool_()),
                "reason": pa.array([trial.reason for trial in self.trials], pa.string()),
            }
        )


class TrialRun(Protocol):
    """Where a trial that goes on is recorded."""

    run_id: str

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record figures at an optimiser step."""

    def end(self, trial: Trial) -> None:
        """Record how it ended."""


class TrialRuns(Protocol):
    """Where trials are recorded."""

    def start(self, number: int, params: Mapping[str, Any]) -> AbstractContextManager[TrialRun]:
        """A record that is open inside the block, and never left open."""

    def adopt(self, trial: Trial) -> None:
        """Take over the record of a trial from a search that was stopped."""


class DivergedError(ArithmeticError):
    """A loss that is no number."""


class _Within(Progress):
    """Tasks of a trial under its name; what it would say by words is said once, by the final training."""

    def __init__(self, outer: Progress, label: str) -> None:
        self._outer, self._label = outer, label

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """The same task, labelled with the trial."""
        with self._outer.task(f"{self._label}, {label.lower()}", total, unit) as task:
            yield task


def objective(metrics: Mapping[str, float], score: str, rows: int) -> float:
    """What trials are compared by: the score and, among those of the same, the loss.

    Half a row's worth of the score is left to the loss, so that it never outweighs an accuracy.
    """
    loss = metrics["loss"]
    return metrics[score] - 0.5 / rows * loss / (1 + loss)


def search(
    texts: pa.ChunkedArray | pa.Array | Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    base: BaseModel,
    settings: TrainingSettings,
    wanted: TuningSettings,
    *,
    folder: Path | None,
    identity: str,
    progress: Progress,
    runs: TrialRuns,
    init_dir: Path | None = None,
    features: FeatureCache | None = None,
) -> Tuning:
    """Find the best settings for a training on these rows.

    The first trial has the recipe's own settings. Trials are the same for the same arguments, also after a
    kill: those that had ended are taken from ``folder``, and one that was going on goes on.

    Args:
        texts, labels, classes, base, settings, init_dir, features: of the final training, see :func:`.train`.
            The rows that it holds out are not looked at.
        wanted: what to search, and how long.
        folder: where trials are kept for a search that is stopped; ``None`` keeps nothing.
        identity: of rows, base and statement; trials of another search are not used.
        progress: is told about each trial.
        runs: records each trial.

    Raises:
        TrainingDataError: too few rows to judge by, or no trial could be trained.
    """
    rows = texts.to_pylist() if isinstance(texts, (pa.ChunkedArray, pa.Array)) else list(texts)
    truth = class_indices(labels, classes)
    kept, _ = settings.held_out(truth, rows)
    share = judging_share(len(kept)) if len(kept) else 0.0
    judged = replace(settings, eval_fraction=share)
    training, judging = judged.held_out(truth[kept], [rows[row] for row in kept])
    if len(kept) < TUNING_ROWS or not len(judging):
        raise TrainingDataError(
            f"{len(kept):,} rows to train on are too few to tune with.",
            hint=f"tune needs at least {TUNING_ROWS}, a third of which judges the trials; leave it out.",
        )
    with _quiet():
        return _Search(
            [rows[row] for row in kept],
            [labels[row] for row in kept],
            list(classes),
            base,
            settings,
            wanted,
            share=share,
            split=(len(training), len(judging)),
            folder=folder,
            identity=identity,
            progress=progress,
            runs=runs,
            init_dir=init_dir,
            features=features,
        ).run()


class _Search:
    """A search in progress: its rows, its space and the trials that have ended."""

    def __init__(
        self,
        texts: list[str],
        labels: list[str],
        classes: list[str],
        base: BaseModel,
        settings: TrainingSettings,
        wanted: TuningSettings,
        *,
        share: float,
        split: tuple[int, int],
        folder: Path | None,
        identity: str,
        progress: Progress,
        runs: TrialRuns,
        init_dir: Path | None,
        features: FeatureCache | None,
    ) -> None:
        self.texts, self.labels, self.classes = texts, labels, classes
        self.base, self.settings, self.init_dir = base, settings, init_dir
        self.rows_train, self.rows_judged = split
        self.folder, self.progress, self.runs = folder, progress, runs
        self.score = "f1_macro" if settings.class_weight == "balanced" else "accuracy"
        self.trial_settings = replace(settings, eval_fraction=share, baseline=False)
        with quiet_transformers():
            self.space = space_of(texts, base, settings, wanted, init_dir, progress)
        size = self.space.size
        self.wanted = wanted.trials if size is None else min(wanted.trials, size)
        facts = (_CODE, identity, self.space, self.trial_settings, self.score)
        self.identity = hashlib.sha256(repr(facts).encode()).hexdigest()
        self.trials: list[Trial] = []
        self.going: dict[str, Any] = {}  # the trial that was going on when a search was stopped
        self.features = features
        self.failure: BaseException | None = None

    def run(self) -> Tuning:
        """Try one setting after the other."""
        if self.space.size == 1:
            self.progress.message("Nothing to tune: all that is not given would make no difference here.")
            return self._found(None)
        self.progress.message(
            f"Tuning: {self.wanted} trials on {self.rows_train:,} of the training rows, judged on the other "
            f"{self.rows_judged:,}; {self.space.describe()}"
        )
        self._restore()
        while len(self.trials) < self.wanted:
            number = len(self.trials) + 1
            self._tell(self._trial(number, self._proposed(number)))
        complete = [trial for trial in self.trials if trial.state == COMPLETE]
        if not complete:
            raise TrainingDataError(
                f"None of the {len(self.trials)} trials could be trained: {self.trials[0].reason}",
                hint="Without tune, BUILD MODEL trains with the base model's own settings.",
            ) from self.failure
        best = max(complete, key=_value)  # of equals the first
        first = self.trials[0]
        compared = "" if best is first or first.state != COMPLETE else f", {self._figure(first)} with"
        compared = compared and f"{compared} the base model's own"
        self.progress.message(
            f"Trial {best.number} of {self.wanted} was best, {self._words(best)}: "
            f"{self.score} {self._figure(best)}{compared}"
        )
        return self._found(best)

    def _found(self, best: Trial | None) -> Tuning:
        chosen = {} if best is None else {name: best.params[name] for name in best.suggested}
        return Tuning(
            replace(self.settings, **chosen),
            chosen,
            self.trials,
            best,
            self.score,
            self.rows_train,
            self.rows_judged,
        )

    # ------------------------------------------------------------------------------------------- one trial

    def _proposed(self, number: int) -> optuna.Trial:
        """Optuna's next proposal, from the trials so far and nothing else."""
        seed = int(np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0])
        sampler: optuna.samplers.BaseSampler
        if self.space.size is None:
            sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP_TRIALS, seed=seed)
        else:  # few enough to be tried without repeating one
            sampler = optuna.samplers.BruteForceSampler(seed=seed)
        study = optuna.create_study(
            direction="maximize",
            sampler=sampler,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=_STARTUP_TRIALS, n_min_trials=_STARTUP_TRIALS - 1
            ),
        )
        study.add_trials([trial.frozen(self.space) for trial in self.trials])
        if number == 1:
            study.enqueue_trial(self.space.beginning())
        return study.ask(self.space.distributions())

    def _trial(self, number: int, proposed: optuna.Trial) -> Trial:
        """Train with the proposed settings, as far as it is worth it."""
        taken = self.space.taken(proposed.params)
        trial = Trial(number, self.space.start | taken, proposed.params, COMPLETE)
        started = time.monotonic()
        with self.runs.start(number, trial.params) as run:
            course = self._gone(proposed, number)
            latest: dict[str, float] = {}

            def on_metrics(point: dict[str, float], step: int) -> None:
                run.log_metrics(point, step)
                if not math.isfinite(point.get("loss", point.get("eval_loss", 0.0))):
                    raise DivergedError("the loss is no number any more")
                if "eval_loss" in point:
                    latest.update(_judged(point))
                    epoch = round(point["epoch"])
                    # Not of the last one: by then the rate has fallen and weights are averaged, which trials
                    # of more epochs have before them.
                    if epoch < trial.params["epochs"]:
                        if epoch not in course:
                            course[epoch] = objective(latest, self.score, self.rows_judged)
                            proposed.report(course[epoch], epoch)
                            self._keep({"number": number, "course": course})
                        if proposed.should_prune():
                            raise optuna.TrialPruned

            try:
                result = train(
                    self.texts,
                    self.labels,
                    self.classes,
                    self.base,
                    replace(self.trial_settings, **taken),
                    output_dir=None,
                    checkpoint_dir=self.folder / "trial" if self.folder is not None else None,
                    progress=_Within(self.progress, f"Trial {number} of {self.wanted}"),
                    on_metrics=on_metrics,
                    init_dir=self.init_dir,
                    features=self.features,
                )
                value = objective(result.metrics, self.score, self.rows_judged)
                if not math.isfinite(value):
                    raise DivergedError("the loss is no number any more")
                trial = replace(trial, objective=value, metrics=result.metrics)
            except optuna.TrialPruned:
                trial = replace(trial, state=PRUNED, metrics=latest)
            except _OF_SETTINGS as error:
                self.failure = self.failure or error.with_traceback(None)  # a traceback would hold the model
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                trial = replace(trial, state=FAILED, reason=reason)
            trial = replace(trial, course=course, seconds=time.monotonic() - started, run_id=run.run_id)
            self.trials.append(trial)
            self._keep()
            run.end(trial)
        if self.folder is not None:
            shutil.rmtree(self.folder / "trial", ignore_errors=True)  # of one that was pruned or failed
        return trial

    def _gone(self, proposed: optuna.Trial, number: int) -> dict[int, float]:
        """The objective at the ends of the epochs that this trial had behind it when it was stopped."""
        if self.going.get("number") != number:
            return {}
        course = {int(epoch): value for epoch, value in self.going["course"].items()}
        for epoch, value in course.items():
            proposed.report(value, epoch)
        return course

    # ---------------------------------------------------------------------------------------- what is kept

    def _restore(self) -> None:
        """Take over the trials of a search that was stopped."""
        if self.folder is None:
            return
        try:
            kept = json.loads((self.folder / _KEPT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if kept.get("identity") != self.identity:
            return
        self.going = kept["going"]
        for values in kept["trials"]:
            values["course"] = {int(epoch): value for epoch, value in values["course"].items()}
            trial = Trial(**values)
            self.trials.append(trial)
            self.runs.adopt(trial)
        if self.trials:
            self.progress.message(
                f"Going on after {len(self.trials)} of {self.wanted} trials, which had ended before"
            )

    def _keep(self, going: Mapping[str, Any] | None = None) -> None:
        if self.folder is not None:
            kept = {"identity": self.identity, "trials": [asdict(one) for one in self.trials]}
            write_atomically(self.folder / _KEPT, json.dumps(kept | {"going": going or {}}))

    # -------------------------------------------------------------------------------------------- in words

    def _tell(self, trial: Trial) -> None:
        complete = [one for one in self.trials if one.state == COMPLETE]
        outcome = self._figure(trial)
        if trial.state == PRUNED:
            outcome += ", stopped early"
        if complete:
            best = max(complete, key=_value)
            outcome += f" (best {self._figure(best)})"
        self.progress.message(
            f"Trial {trial.number} of {self.wanted}: {self._words(trial)}: "
            + (f"failed, {trial.reason}" if trial.state == FAILED else f"{self.score} {outcome}")
        )

    def _figure(self, trial: Trial) -> str:
        found = trial.metrics.get(self.score)
        return "?" if found is None else f"{found:.3f}"

    @staticmethod
    def _words(trial: Trial) -> str:
        epochs = trial.params["epochs"]
        passes = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        tokens = f"{trial.params['max_length']} tokens"
        return f"learning rate {rate(trial.params['learning_rate'])}, {passes}, {tokens}"


def _value(trial: Trial) -> float:
    return -math.inf if trial.objective is None else trial.objective


def _judged(point: Mapping[str, float]) -> dict[str, float]:
    """The figures at the end of an epoch, by their own names."""
    return {name: point[f"eval_{name}"] for name in ("loss", "accuracy", "f1_macro")}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing of its own."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
