"""How good predicted numbers are, and pictures of a search and of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from .search import Tried

_MOST_POINTS = 5_000
_MOST_BARS = 20


def regression_scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """mae, rmse and r2 (the coefficient of determination; NaN where all true numbers are the same).

    Args:
        truth: true numbers, shape (N,), N at least 1.
        found: predicted numbers, shape (N,).
    """
    errors = found - truth
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "r2": 1 - float(np.sum(errors**2)) / spread if spread > 0 else float("nan"),
    }


def regression_table(truth: np.ndarray, found: np.ndarray) -> pa.Table:
    """The rows of EVALUATE: ``metric`` and ``score``.

    RMSLE is the root mean square error of ``log(1 + y)``, NULL where a number is below zero; MAPE is the mean
    of ``|error / true number|``, NULL where a true number is 0; R2 is NULL where all true numbers are one.
    """
    scores = regression_scores(truth, found)
    rows = {
        "MAE": scores["mae"],
        "MSE": scores["rmse"] ** 2,
        "RMSE": scores["rmse"],
        "R2": scores["r2"],
        "RMSLE": np.nan,
        "MAPE": np.nan,
    }
    if min(truth.min(), found.min()) >= 0:
        rows["RMSLE"] = float(np.sqrt(np.mean((np.log1p(found) - np.log1p(truth)) ** 2)))
    if np.all(truth != 0):
        rows["MAPE"] = float(np.mean(np.abs((found - truth) / truth)))
    values = [None if np.isnan(value) else float(value) for value in rows.values()]
    return pa.table({"metric": list(rows), "score": pa.array(values, pa.float64())})


def residuals(truth: np.ndarray, found: np.ndarray) -> bytes:
    """Predicted against true numbers, and how the errors are spread; PNG."""
    from matplotlib.figure import Figure

    from ..figures import _BLUE, _GREY, _png

    some = np.linspace(0, len(truth) - 1, min(len(truth), _MOST_POINTS)).astype(np.int64)
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(truth[some], found[some], s=9, alpha=0.5, color=_BLUE, linewidths=0)
    low, high = float(min(truth.min(), found.min())), float(max(truth.max(), found.max()))
    left.plot([low, high], [low, high], color=_GREY, linewidth=1)
    left.set_xlabel("true")
    left.set_ylabel("predicted")
    right.hist(found - truth, bins=min(40, max(5, len(truth) // 5)), color=_BLUE)
    right.axvline(0, color=_GREY, linewidth=1)
    right.set_xlabel("predicted - true")
    right.set_ylabel("rows")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def importances(found: Sequence[tuple[str, float]], loss: str) -> bytes:
    """The columns that matter most, by how much ``loss`` rises without each; PNG."""
    from matplotlib.figure import Figure

    from ..figures import _BLUE, _png

    shown = found[:_MOST_BARS][::-1]
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    names = [name if len(name) <= 30 else name[:29] + "…" for name, _ in shown]
    axes.barh(range(len(shown)), [value for _, value in shown], color=_BLUE)
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel(f"{loss} rises by so much when the column is shuffled")
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def search_curve(trials: Sequence[Tried], loss: str) -> bytes:
    """The loss of each trial, by kind of model, and the best so far; PNG."""
    from matplotlib.figure import Figure

    from ..figures import _GREY, _png

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    judged = [one for one in trials if one.loss is not None]
    for learner in dict.fromkeys(one.learner for one in judged):
        points = [(one.number, one.loss) for one in judged if one.learner == learner]
        axes.plot(*zip(*points, strict=True), marker="o", linestyle="none", markersize=4, label=learner)
    axes.step([one.number for one in judged], [one.best or 0.0 for one in judged], where="post", color=_GREY)
    best, worst = min(one.loss or 0 for one in judged), max(one.loss or 0 for one in judged)
    if best > 0 and worst > 20 * best:
        axes.set_yscale("log")
    axes.set_xlabel("trial")
    axes.set_ylabel(loss)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _png(figure)
