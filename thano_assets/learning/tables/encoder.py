"""How each column becomes numbers, learnt from the training rows; :mod:`.model` then does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .model import DATE_PARTS, encode, scaled

#: Categories of a column that have a column of their own; the rest share one.
MOST_CATEGORIES = 30
#: Categories of a column whose share of the rows is kept.
MOST_SHARES = 10_000
#: A column of text with more different values than this share of its rows (and this many) is no category.
UNIQUE_SHARE, UNIQUE_VALUES = 0.5, 50


@dataclass(frozen=True)
class Encoder:
    """What :func:`fit` learnt.

    Attributes:
        features: of each column that is used, what :func:`.model.encode` needs.
        scaling: what :func:`.model.scaled` needs.
        imputer: predicts missing numbers, or ``None``.
        left_out: columns that hold nothing to learn from, each with the reason.
    """

    features: list[dict[str, Any]]
    scaling: dict[str, Any]
    imputer: Any
    left_out: dict[str, str]

    def transform(self, rows: pa.Table) -> np.ndarray:
        """What an estimator reads, float32 of shape (N, D)."""
        return scaled(encode(rows, self.features), self.scaling, self.imputer)

    def spans(self) -> list[tuple[str, slice]]:
        """Each column of the table with its columns in the matrix."""
        spans, start = [], 0
        for feature in self.features:
            end = start + _width(feature)
            spans.append((feature["name"], slice(start, end)))
            start = end
        return spans


def fit(rows: pa.Table, features: Sequence[dict[str, Any]], *, impute_type: str, seed: int) -> Encoder:
    """Learn how the columns of ``rows`` become numbers.

    Args:
        rows: the training rows.
        features: ``name``, ``kind`` (number, boolean, category, datetime or vector), and ``size`` of vectors.
        impute_type: ``'simple'`` or ``'iterative'``: scikit-learn's IterativeImputer, which is MICE's chained
            equations (van Buuren and Groothuis-Oudshoorn 2011) with one outcome.
        seed: of the imputer.
    """
    used: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for feature in features:
        column = rows.column(feature["name"])
        known = len(column) - column.null_count
        if not known:
            left_out[feature["name"]] = "all its values are NULL"
            continue
        learnt = {**feature, "missing": _has_gaps(column)}
        if feature["kind"] == "category":
            counts = pc.value_counts(column.drop_null())
            if len(counts) > max(UNIQUE_VALUES, UNIQUE_SHARE * known):
                left_out[feature["name"]] = f"{len(counts):,} of its {known:,} values differ"
                continue
            learnt |= _categories(counts, len(column))
        used.append(learnt)
    if not used:
        return Encoder([], {}, None, left_out)
    matrix = encode(rows, used)
    imputer, imputed = None, _scalars(used)
    if impute_type == "iterative" and np.isnan(matrix[:, imputed]).any() and len(imputed) > 1:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - or it cannot be imported
        from sklearn.impute import IterativeImputer

        imputer = IterativeImputer(random_state=seed, keep_empty_features=True).fit(matrix[:, imputed])
    present = ~np.isnan(matrix)
    counts = np.maximum(present.sum(axis=0), 1)
    means = np.where(present, matrix, 0.0).sum(axis=0) / counts
    squares = np.where(present, (matrix - means) ** 2, 0.0).sum(axis=0) / counts
    deviations = np.sqrt(squares)
    scaling = {
        "means": means.tolist(),
        "deviations": np.where(deviations > 0, deviations, 1.0).tolist(),
        "imputed": imputed,
    }
    return Encoder(used, scaling, imputer, left_out)


def _has_gaps(column: pa.ChunkedArray) -> bool:
    floating = pa.types.is_floating(column.type)
    return bool(column.null_count) or (floating and bool(pc.any(pc.is_nan(column)).as_py()))


def _categories(counts: pa.StructArray, rows: int) -> dict[str, Any]:
    """The categories, frequent ones first, those of the same frequency in order."""
    found = sorted(counts.to_pylist(), key=lambda one: (-one["counts"], one["values"]))[:MOST_SHARES]
    frequent = sum(one["counts"] > 1 for one in found[:MOST_CATEGORIES])
    return {
        "categories": [one["values"] for one in found],
        "shares": [one["counts"] / rows for one in found],
        "columns": frequent,
    }


def _width(feature: dict[str, Any]) -> int:
    width = {"vector": feature.get("size", 0), "datetime": len(DATE_PARTS)}.get(feature["kind"], 1)
    if feature["kind"] == "category":
        width = int(feature["columns"]) + 2
    return int(width) + bool(feature["missing"])


def _scalars(features: Sequence[dict[str, Any]]) -> list[int]:
    """Columns of the matrix that hold one number of a row: not those of categories and vectors."""
    places: list[int] = []
    start = 0
    for feature in features:
        width = _width(feature)
        if feature["kind"] in ("number", "boolean", "datetime"):
            places += range(start, start + width - bool(feature["missing"]))
        start += width
    return places
