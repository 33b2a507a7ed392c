"""From rows to a model of a table: encode, search, fit, judge on held-out rows, save."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import TrainingDataError
from ...progress import Progress
from ..baseline import majority_accuracy
from ..calibration import fit_temperature
from ..holdout import hold_out
from . import encoder
from .learners import LEARNERS, state
from .model import CONFIG, TableModel, predicted
from .report import regression_scores
from .search import Found, fitted, loss_of, search
from .settings import TableSettings

#: Share of the training rows that an outlier method leaves out.
OUTLIERS = 0.05
_JUDGED_BY_SHUFFLING, _SHUFFLES = 2_000, 3
_LIBRARIES = ("lightgbm", "scikit-learn", "optuna", "numpy", "pyarrow")


@dataclass(frozen=True)
class TableResult:
    """What a training gave.

    Attributes:
        model_dir: the model's folder, as :class:`.model.TableModel` reads it.
        metrics: figures on the held-out rows, empty where there are none.
        found: the search.
        rows_train, rows_eval: rows that were learnt from, outliers left out, and rows held out.
        outliers: training rows that were left out.
        left_out: columns that hold nothing to learn from, each with the reason.
        features: the columns that are read, as they were given.
        classes: labels in the order of the outputs.
        importance: columns by how much the loss rises when they are shuffled.
        truth: true class indices or numbers of the held-out rows, shape (rows_eval,).
        held_out: what the model says of them, float64 of shape (rows_eval, C) or (rows_eval, 1).
        digest: of all that decides the model's answers.
        library_versions: by name.
    """

    model_dir: Path
    metrics: dict[str, float]
    found: Found
    rows_train: int
    rows_eval: int
    outliers: int
    left_out: dict[str, str]
    features: list[dict[str, Any]]
    classes: list[str]
    importance: list[tuple[str, float]]
    truth: np.ndarray
    held_out: np.ndarray
    digest: str
    library_versions: dict[str, str]

    @property
    def learner(self) -> str:
        """The kind of model, in words."""
        return LEARNERS[self.found.best.learner]


def train(
    rows: pa.Table,
    target: str,
    features: Sequence[dict[str, Any]],
    classes: Sequence[str],
    settings: TableSettings,
    *,
    output_dir: Path,
    progress: Progress,
    on_metrics: Callable[[dict[str, float], int], None],
) -> TableResult:
    """Find the best model of ``rows`` and save it to ``output_dir``.

    Args:
        rows: with the columns of ``features`` and ``target``, in an order that does not change.
        target: the column that is predicted: labels as text, or numbers.
        features: ``name``, ``kind`` and, of vectors, ``size``.
        classes: labels as text in the order of the outputs; none where numbers are predicted.
        settings: the choices.
        output_dir: made here.
        progress: told what goes on.
        on_metrics: given the figures of each trial, by its number.

    Raises:
        TrainingDataError: no column holds anything to learn from, or too few rows are left.
    """
    count = len(classes)
    truth = _truth(rows.column(target), classes)
    groups = truth if count else np.zeros(len(truth), dtype=np.int64)
    train_rows, held = hold_out(groups, settings.eval_fraction, settings.seed)
    encoded = encoder.fit(
        rows.take(train_rows), features, impute_type=settings.impute_type, seed=settings.seed
    )
    for name, reason in encoded.left_out.items():
        progress.warning(left_out_sentence(name, reason))
    if not encoded.features:
        raise TrainingDataError(
            f"No column of the query holds anything to predict {target} from.",
            hint="It needs a column of numbers, dates, vectors, or of texts that occur more than once.",
        )
    matrix, known = encoded.transform(rows.take(train_rows)), truth[train_rows]
    kept = _inliers(matrix, known, count, settings)
    outliers = len(kept) - int(kept.sum())
    if outliers:
        progress.message(f"{outliers:,} of {len(kept):,} training rows are outliers and are left out")
    matrix, known = matrix[kept], known[kept]
    found = search(matrix, known, count, settings, progress, on_metrics)
    best = found.best
    model = fitted(matrix, known, count, best.learner, best.params, settings)
    config: dict[str, Any] = {
        "model_type": "table",
        "task": settings.task,
        "target": target,
        "classes": list(classes),
        "learner": best.learner,
        "params": best.params,
        "features": encoded.features,
        "scaling": encoded.scaling,
    }
    whole = TableModel(config, model, encoded.imputer)
    judged = rows.take(held)
    says = whole.predict(judged)
    if count and (temperature := fit_temperature(says, truth[held])) != 1.0:
        config["temperature"] = temperature
        says = whole.predict(judged)
    output_dir.mkdir(parents=True, exist_ok=True)
    whole.save(output_dir)
    sample = judged if len(held) else rows.take(train_rows)
    sample_truth = truth[held] if len(held) else truth[train_rows]
    return TableResult(
        model_dir=output_dir,
        metrics=_metrics(truth[held], says, known, count) if len(held) else {},
        found=found,
        rows_train=len(known),
        rows_eval=len(held),
        outliers=outliers,
        left_out=encoded.left_out,
        features=[one for one in features if one["name"] not in encoded.left_out],
        classes=list(classes),
        importance=_importance(whole, encoded, sample, sample_truth, settings.seed),
        truth=truth[held],
        held_out=says,
        digest=_digest(output_dir / CONFIG, model, encoded),
        library_versions={name: version(name) for name in _LIBRARIES},
    )


def left_out_sentence(name: str, reason: str) -> str:
    """Why a column is not learnt from, and what can be done."""
    text = f"The column {name} is not learnt from: {reason}"
    if "differ" in reason:
        text += "; CONVERT makes vectors of texts, which are learnt from"
    return f"{text}."


def _truth(column: pa.ChunkedArray, classes: Sequence[str]) -> np.ndarray:
    if not classes:
        return np.asarray(column.to_numpy(), dtype=np.float64)
    import pyarrow.compute as pc

    places = pc.index_in(column, value_set=pa.array(list(classes), pa.string()))
    return np.asarray(places.to_numpy(), dtype=np.int64)


def _inliers(matrix: np.ndarray, truth: np.ndarray, classes: int, settings: TableSettings) -> np.ndarray:
    """Which rows are learnt from, bool of shape (N,); of every class at least half stay."""
    kept = np.ones(len(matrix), dtype=bool)
    if settings.outlier_method is None or len(matrix) < 20:
        return kept
    strangeness = _strangeness(matrix, settings)
    most = int(len(matrix) * OUTLIERS)
    left = {place: int(count) // 2 for place, count in enumerate(np.bincount(truth))} if classes else None
    for row in np.argsort(-strangeness, kind="stable")[:most]:
        if left is not None:
            if not left[int(truth[row])]:
                continue
            left[int(truth[row])] -= 1
        kept[row] = False
    return kept


def _strangeness(matrix: np.ndarray, settings: TableSettings) -> np.ndarray:
    """How unlike the others each row is."""
    if settings.outlier_method == "knn":
        from sklearn.neighbors import LocalOutlierFactor

        found = LocalOutlierFactor(n_neighbors=min(20, len(matrix) - 1)).fit(matrix)
        return -np.asarray(found.negative_outlier_factor_)
    if settings.outlier_method == "iso":
        from sklearn.ensemble import IsolationForest

        forest = IsolationForest(random_state=settings.seed).fit(matrix)
        return -np.asarray(forest.score_samples(matrix))
    from sklearn.decomposition import PCA

    if matrix.shape[1] == 1:
        return np.abs(matrix[:, 0])
    axes = PCA(n_components=0.9, svd_solver="full").fit(matrix)
    rebuilt = axes.inverse_transform(axes.transform(matrix))
    return np.asarray(((matrix - rebuilt) ** 2).sum(axis=1))


def _metrics(truth: np.ndarray, says: np.ndarray, known: np.ndarray, classes: int) -> dict[str, float]:
    """Figures on the held-out rows, beside those of who always says the same."""
    if not classes:
        mean = regression_scores(truth, np.full(len(truth), known.mean()))
        scores = regression_scores(truth, says[:, 0])
        return scores | {"baseline_mae": mean["mae"], "baseline_rmse": mean["rmse"]}
    from .. import metrics

    found = metrics.scores(truth, says) | {"roc_auc": metrics.roc_auc(truth, says)}
    found["majority_accuracy"] = majority_accuracy(known, truth)
    return found


def _importance(
    model: TableModel, encoded: encoder.Encoder, rows: pa.Table, truth: np.ndarray, seed: int
) -> list[tuple[str, float]]:
    """By how much the loss rises when a column is shuffled, greatest first.

    Permutation importance (Breiman 2001; Fisher et al. 2019), the mean of :data:`_SHUFFLES` shuffles.
    """
    rng = np.random.default_rng([seed, 13])
    some = rng.permutation(len(truth))[:_JUDGED_BY_SHUFFLING]
    matrix, truth = encoded.transform(rows.take(np.sort(some))), truth[np.sort(some)]
    classes = len(model.classes)
    usual = loss_of(truth, predicted(model._estimator, matrix, classes), classes)
    found = []
    for name, span in encoded.spans():
        rises = []
        for _ in range(_SHUFFLES):
            shuffled = matrix.copy()
            shuffled[:, span] = matrix[rng.permutation(len(matrix)), span]
            rises.append(loss_of(truth, predicted(model._estimator, shuffled, classes), classes) - usual)
        found.append((name, float(np.mean(rises))))
    return sorted(found, key=lambda one: -one[1])


def _digest(config: Path, model: Any, encoded: encoder.Encoder) -> str:
    digest = hashlib.sha256(config.read_bytes())
    for part in state(model):
        digest.update(part)
    if encoded.imputer is not None:
        for step in encoded.imputer.imputation_sequence_:
            digest.update(np.ascontiguousarray(step.estimator.coef_).tobytes())
    return digest.hexdigest()[:32]
