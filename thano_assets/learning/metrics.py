"""How good predictions are, from true labels and probabilities.

Definitions are scikit-learn's. Rows whose probabilities are NaN (a text was missing) are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn import metrics as sk

from ..errors import InvalidOption, TrainingDataError, nearest
from .calibration import calibration_error

REPORTS = ("summary", "classes", "confusion", "roc")


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """The place of each label in ``classes``, int64 of shape (N,).

    Raises:
        TrainingDataError: a label is none of the classes.
    """
    place = {label: index for index, label in enumerate(classes)}
    unknown = sorted({label for label in labels if label not in place})
    if unknown:
        shown = ", ".join(repr(label) for label in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        close = nearest(unknown[0], classes, 1)
        raise TrainingDataError(
            f"The label column holds {shown}, which the model does not know.",
            hint=(f"Did you mean {close[0]!r}? " if close else "")
            + f"Its labels are {', '.join(repr(label) for label in classes[:12])}.",
        )
    return np.fromiter((place[label] for label in labels), dtype=np.int64, count=len(labels))


def scores(true: np.ndarray, proba: np.ndarray, classes: int | None = None) -> dict[str, float]:
    """accuracy, f1_macro, precision_macro, recall_macro and loss (mean cross-entropy in nats).

    Args:
        true: class indices, shape (N,), N at least 1.
        proba: probabilities, shape (N, C).
        classes: how many of the columns, from the first, the macro averages are over; by default all.
    """
    guessed = proba.argmax(axis=1)
    every = np.arange(classes or proba.shape[1])
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        true, guessed, labels=every, average="macro", zero_division=0
    )
    return {
        "accuracy": float((guessed == true).mean()),
        "f1_macro": float(f1),
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "loss": _log_loss(true, proba),
    }


def roc_auc(true: np.ndarray, proba: np.ndarray) -> float:
    """Area under the ROC curve: of the second of two classes, else the mean of each class against the rest.

    NaN where the rows do not have two classes at least.

    Args:
        true: class indices, shape (N,).
        proba: probabilities, shape (N, C).
    """
    present = np.unique(true)
    if len(present) < 2:
        return float("nan")
    judged = [1] if proba.shape[1] == 2 else present
    return float(np.mean([sk.roc_auc_score(true == place, proba[:, place]) for place in judged]))


def confusion(true: np.ndarray, proba: np.ndarray) -> list[list[int]]:
    """Counts by true class (rows) and predicted class (columns), shape (C, C)."""
    every = np.arange(proba.shape[1])
    table: list[list[int]] = sk.confusion_matrix(true, proba.argmax(axis=1), labels=every).tolist()
    return table


def mistakes(matrix: Sequence[Sequence[int]], classes: Sequence[str], most: int = 5) -> str:
    """The pairs of a confusion matrix confused most often, in words; ``none`` where there is none."""
    pairs = [
        (count, true, says)
        for i, true in enumerate(classes)
        for j, says in enumerate(classes)
        if i != j and (count := matrix[i][j])
    ]
    pairs.sort(key=lambda pair: -pair[0])
    told = [f"{true} taken for {says} ({count:,})" for count, true, says in pairs[:most]]
    more = len(pairs) - most
    return "; ".join([*told, *([f"{more} other pairs"] if more > 0 else [])]) or "none"


def evaluate(
    true: Sequence[str], proba: np.ndarray, classes: Sequence[str], report: str = "summary"
) -> pa.Table:
    """The rows of EVALUATE.

    Args:
        true: the true label of each row.
        proba: probabilities, shape (N, C), columns in the order of ``classes``; NaN rows are left out.
        classes: the model's labels. With two, the second is the positive one.
        report: ``'summary'`` gives metric and score; ``'classes'`` precision, recall, f1 and support per
            label; ``'confusion'`` a count for each pair of true and predicted label; ``'roc'`` the points of
            the curve of each label against the rest (of the positive one where there are two).

    Raises:
        InvalidOption: no such report.
        TrainingDataError: an unknown label, or no row is left.
    """
    if report not in REPORTS:
        raise InvalidOption(
            f"report='{report}' is not a report.", hint=f"It must be one of {', '.join(REPORTS)}."
        )
    indices = class_indices(true, classes)
    kept = ~np.isnan(proba).any(axis=1)
    if not kept.any():
        raise TrainingDataError(
            "There is no row to evaluate on.",
            hint="Every row needs a text and a true label; check the query.",
        )
    indices, proba = indices[kept], proba[kept]
    with warnings.catch_warnings():
        # Rows of one label only leave some scores undefined: they are NULL in the result, which says it.
        warnings.simplefilter("ignore")
        if report == "classes":
            return _class_report(indices, proba, classes)
        if report == "confusion":
            return _confusion_report(indices, proba, classes)
        if report == "roc":
            return _roc_report(indices, proba, classes)
        return _summary(indices, proba)


def _summary(true: np.ndarray, proba: np.ndarray) -> pa.Table:
    guessed = proba.argmax(axis=1)
    if proba.shape[1] == 2:
        rows = {
            "Accuracy": (guessed == true).mean(),
            # Undefined when one label only is there: no pair of rows to rank.
            "ROCAUC": sk.roc_auc_score(true, proba[:, 1]) if len(np.unique(true)) == 2 else np.nan,
            "Recall": sk.recall_score(true, guessed, zero_division=0),
            "Precision": sk.precision_score(true, guessed, zero_division=0),
            "F1-Score": sk.f1_score(true, guessed, zero_division=0),
            "Kappa": sk.cohen_kappa_score(true, guessed, labels=[0, 1]),
            "MCC": sk.matthews_corrcoef(true, guessed),
            "log loss": _log_loss(true, proba),
        }
    else:
        found = scores(true, proba)
        rows = {
            "Accuracy": found["accuracy"],
            "macro-Recall": found["recall_macro"],
            "macro-Precision": found["precision_macro"],
            "macro-F1-Score": found["f1_macro"],
            "log loss": found["loss"],
        }
    rows["expected calibration error"] = calibration_error(true, proba)
    values = [None if np.isnan(value) else float(value) for value in rows.values()]
    return pa.table({"metric": pa.array(list(rows), pa.string()), "score": pa.array(values, pa.float64())})


def _class_report(true: np.ndarray, proba: np.ndarray, classes: Sequence[str]) -> pa.Table:
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        true, proba.argmax(axis=1), labels=np.arange(len(classes)), zero_division=0
    )
    return pa.table(
        {
            "label": pa.array(list(classes), pa.string()),
            "precision": pa.array(precision, pa.float64()),
            "recall": pa.array(recall, pa.float64()),
            "f1": pa.array(f1, pa.float64()),
            "support": pa.array(support, pa.int64()),
        }
    )


def _confusion_report(true: np.ndarray, proba: np.ndarray, classes: Sequence[str]) -> pa.Table:
    counts = confusion(true, proba)
    cells = [(t, p, counts[i][j]) for i, t in enumerate(classes) for j, p in enumerate(classes)]
    return pa.table(
        {
            "label": pa.array([cell[0] for cell in cells], pa.string()),
            "predicted": pa.array([cell[1] for cell in cells], pa.string()),
            "rows": pa.array([cell[2] for cell in cells], pa.int64()),
        }
    )


def _roc_report(true: np.ndarray, proba: np.ndarray, classes: Sequence[str]) -> pa.Table:
    columns: dict[str, list[object]] = {
        name: [] for name in ("label", "false_positive_rate", "true_positive_rate")
    }
    columns["threshold"] = []
    for index in [1] if len(classes) == 2 else range(len(classes)):
        if not 0 < (true == index).sum() < len(true):
            continue  # the curve needs rows of both kinds
        false_rate, true_rate, thresholds = sk.roc_curve(true == index, proba[:, index])
        columns["label"] += [classes[index]] * len(thresholds)
        columns["false_positive_rate"] += false_rate.tolist()
        columns["true_positive_rate"] += true_rate.tolist()
        # scikit-learn starts at infinity, "nothing is positive"; a probability says the same with 1.
        columns["threshold"] += np.minimum(thresholds, 1.0).tolist()
    types = {"label": pa.string()}
    return pa.table(
        {name: pa.array(values, types.get(name, pa.float64())) for name, values in columns.items()}
    )


def _log_loss(true: np.ndarray, proba: np.ndarray) -> float:
    picked = proba[np.arange(len(true)), true].astype(np.float64)
    return float(-np.log(np.clip(picked, 1e-12, 1.0)).mean()) + 0.0  # a loss of nothing is 0.0, not -0.0
