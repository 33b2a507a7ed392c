"""The search for the best kind of model and its settings, with Optuna.

A search is a chain of trials, each chosen from the ones before by a tree-structured Parzen estimator
(Bergstra et al. 2011) with a seed. So the settings after n trials follow from the rows, the seed and n: time
decides only how many trials there are, and a search that was cut short is repeated by asking for as many. A
trial that is going on when the time is up is given up and counts for nothing, so this holds for it too.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import TrainingDataError
from ...progress import Progress
from .learners import PORTFOLIO, estimator, suggest
from .model import predicted
from .settings import TableSettings

#: Up to so many rows a setting is judged by cross-validation, above by one part of them.
CROSS_VALIDATED = 20_000
FOLDS = 3
_JUDGED = 5  # of five parts one judges, where there is no cross-validation
_TREES = 8  # of a forest that are grown between two looks at the clock


@dataclass(frozen=True)
class Tried:
    """One trial: what was tried, how it was judged (``None`` where it failed), and how long it took."""

    number: int
    learner: str
    params: dict[str, Any]
    loss: float | None
    best: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Found:
    """The outcome of a search: all trials, the best of them, and whether time ran out before the last one."""

    trials: list[Tried]
    best: Tried
    cut_short: bool


def search(
    matrix: np.ndarray,
    truth: np.ndarray,
    classes: int,
    settings: TableSettings,
    progress: Progress,
    on_metrics: Callable[[dict[str, float], int], None],
) -> Found:
    """Try settings until there were ``max_trials`` or the time is up; one is always tried to its end.

    Args:
        matrix: float32 of shape (N, D).
        truth: class indices or numbers, shape (N,).
        classes: how many, 0 for numbers.
        settings: of the training.
        progress: told after each trial.
        on_metrics: given ``loss`` (the best so far), ``eval_loss`` and ``seconds`` of each trial by number.

    Raises:
        TrainingDataError: no setting could be fitted.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=10))
    for tried in PORTFOLIO:
        study.enqueue_trial(tried)
    folds = _folds(truth, classes, settings.seed)
    trials: list[Tried] = []
    best: Tried | None = None
    budget = settings.time_budget
    end = None if budget is None else time.monotonic() + budget
    with progress.task("Trying models", settings.max_trials, "trials") as task:
        for number in range(1, settings.max_trials + 1):
            began = time.monotonic()
            trial = study.ask()
            learner, params = suggest(trial)
            loss, error = None, None
            try:
                limit = end if trials else None
                loss = _judged(matrix, truth, classes, folds, learner, params, settings, limit)
            except _TimeIsUp:
                break
            except Exception as problem:  # whatever a library raises, this setting is none
                error = str(problem).split("\n")[0]
            if loss is None or not np.isfinite(loss):
                loss = None
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, loss)
            seconds = time.monotonic() - began
            lowest = min((one.loss for one in trials if one.loss is not None), default=None)
            if loss is not None and (lowest is None or loss < lowest):
                lowest = loss
            now = Tried(number, learner, params, loss, lowest, seconds, error)
            trials.append(now)
            if loss is not None and loss == lowest and (best is None or loss < best.loss):  # type: ignore[operator]
                best = now
            told = {"seconds": seconds}
            if lowest is not None:
                told["loss"] = lowest
            if loss is not None:
                told["eval_loss"] = loss
            on_metrics(told, number)
            if best is not None and best.loss is not None:
                task.advance(1, best_loss=best.loss, learner=best.learner)
            else:
                task.advance(1)
    if best is None:
        raise TrainingDataError(
            f"None of {len(trials)} kinds of models could be fitted ({trials[-1].error}).",
            hint="More rows, or other columns, may help.",
        )
    return Found(trials, best, len(trials) < settings.max_trials)


def fitted(
    matrix: np.ndarray,
    truth: np.ndarray,
    classes: int,
    learner: str,
    params: dict[str, Any],
    settings: TableSettings,
    end: float | None = None,
) -> Any:
    """An estimator with these settings, fitted on all rows.

    Args:
        matrix: float32 of shape (N, D).
        truth: class indices or numbers, shape (N,).
        classes: how many, 0 for numbers.
        learner: the kind.
        params: its settings.
        settings: of the training.
        end: when to give up, by :func:`time.monotonic`; what is fitted before is the same as without it.

    Raises:
        _TimeIsUp: it was not done at ``end``; a linear model is brought to its end.
    """
    _look_at_clock(end)
    if classes and len(np.unique(truth)) == 1:
        from sklearn.dummy import DummyClassifier

        return DummyClassifier().fit(matrix, truth)
    model = estimator(
        learner, params, classes=classes, seed=settings.seed, class_weight=settings.class_weight
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of not quite having converged: the loss tells
        if end is not None and learner == "lgbm":
            return model.fit(matrix, truth, callbacks=[lambda _: _look_at_clock(end)])
        if end is not None and "n_estimators" in params:
            # Trees that are added are those that would have been grown at once.
            total = params["n_estimators"]
            for count in [*range(_TREES, total, _TREES), total]:
                model.set_params(warm_start=True, n_estimators=count).fit(matrix, truth)
                _look_at_clock(end if count < total else None)
            return model
        return model.fit(matrix, truth)


class _TimeIsUp(Exception):  # noqa: N818 - a state of the search
    """No time is left for what is going on."""


def _look_at_clock(end: float | None) -> None:
    if end is not None and time.monotonic() >= end:
        raise _TimeIsUp


def loss_of(truth: np.ndarray, found: np.ndarray, classes: int) -> float:
    """Mean cross-entropy in nats of probabilities (N, C), or the root mean square error of numbers (N, 1)."""
    if not classes:
        return float(np.sqrt(np.mean((found[:, 0] - truth) ** 2)))
    picked = found[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(picked, 1e-12, 1.0)).mean())


def _judged(
    matrix: np.ndarray,
    truth: np.ndarray,
    classes: int,
    folds: np.ndarray,
    learner: str,
    params: dict[str, Any],
    settings: TableSettings,
    end: float | None,
) -> float:
    total, rows = 0.0, 0
    for fold in range(FOLDS) if len(truth) <= CROSS_VALIDATED else [0]:
        judged = folds == fold
        model = fitted(matrix[~judged], truth[~judged], classes, learner, params, settings, end)
        loss = loss_of(truth[judged], predicted(model, matrix[judged], classes), classes)
        count = int(judged.sum())
        total += count * (loss if classes else loss**2)
        rows += count
    mean = total / rows
    return mean if classes else float(np.sqrt(mean))


def _folds(truth: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """The part that each row is in, each class in its share."""
    parts = FOLDS if len(truth) <= CROSS_VALIDATED else _JUDGED
    rng = np.random.default_rng([seed, 11])
    order = rng.permutation(len(truth))
    if classes:
        order = order[np.argsort(truth[order], kind="stable")]
    found = np.empty(len(truth), dtype=np.int64)
    found[order] = np.arange(len(truth)) % parts
    return found
