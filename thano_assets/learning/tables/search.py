"""The search for the best kind of model and its settings, with Optuna.

A search is a chain of trials, each chosen from the ones before by a tree-structured Parzen estimator
(Bergstra et al. 2011) with a seed. So the settings after n trials follow from the rows, the seed and n: time
decides only how many trials there are, and a search that was cut short is repeated by asking for as many.
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
    """Try settings until there were ``max_trials`` or the time is up.

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
    started = time.monotonic()
    with progress.task("Trying models", settings.max_trials, "trials") as task:
        for number in range(1, settings.max_trials + 1):
            budget = settings.time_budget
            if trials and budget is not None and time.monotonic() - started >= budget:
                break
            began = time.monotonic()
            trial = study.ask()
            learner, params = suggest(trial)
            loss, error = None, None
            try:
                loss = _judged(matrix, truth, classes, folds, learner, params, settings)
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
) -> Any:
    """An estimator with these settings, fitted on all rows."""
    if classes and len(np.unique(truth)) == 1:
        from sklearn.dummy import DummyClassifier

        return DummyClassifier().fit(matrix, truth)
    model = estimator(
        learner, params, classes=classes, seed=settings.seed, class_weight=settings.class_weight
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of not quite having converged: the loss tells
        return model.fit(matrix, truth)


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
) -> float:
    total, rows = 0.0, 0
    for fold in range(FOLDS) if len(truth) <= CROSS_VALIDATED else [0]:
        judged = folds == fold
        model = fitted(matrix[~judged], truth[~judged], classes, learner, params, settings)
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
