"""A trained model of a table: rows of columns in, predictions out.

This file goes along with every such model into MLflow as ``thano_table_model.py``, so it stands by itself:
it needs numpy, pyarrow, pandas, skops, scikit-learn and LightGBM, and nothing of this package.

A model's folder holds ``config.json`` (which columns, and how each becomes numbers) and ``model.skops`` (the
fitted estimator). skops builds objects of types that are named below and of no others; nothing is unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CONFIG, ESTIMATOR = "config.json", "model.skops"
#: What skops may build besides scikit-learn's and numpy's plain types, which it trusts by itself.
TRUSTED = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "sklearn.impute._iterative.IterativeImputer",
    "sklearn.impute._iterative._ImputerTriplet",
    "sklearn.tree._tree.Tree",
)
#: Numbers that a date becomes, in this order.
DATE_PARTS = ("days since 1970", "year", "month", "day of month", "day of week", "hour")
_ARROW = {
    "number": pa.float64(),
    "boolean": pa.float64(),
    "category": pa.string(),
    "datetime": pa.timestamp("us"),
}


class TableModel:
    """A model of a table, ready to predict.

    Args:
        config: as ``config.json`` keeps it.
        estimator: the fitted estimator.
        imputer: predicts missing numbers; ``None`` where the mean stands in for them.
    """

    def __init__(self, config: dict[str, Any], estimator: Any, imputer: Any = None) -> None:
        self.config = config
        self._estimator = estimator
        self._imputer = imputer

    @classmethod
    def load(cls, folder: Path) -> TableModel:
        """The model of a folder.

        Raises:
            ValueError: ``model.skops`` holds types that no model of ours has.
        """
        import skops.io
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes its type known

        folder = Path(folder)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        strange = set(skops.io.get_untrusted_types(file=folder / ESTIMATOR)) - set(TRUSTED)
        if strange:
            raise ValueError(
                f"{folder / ESTIMATOR} holds types that are not trusted: {', '.join(sorted(strange))}"
            )
        kept = skops.io.load(folder / ESTIMATOR, trusted=list(TRUSTED))
        return cls(config, kept["estimator"], kept["imputer"])

    def save(self, folder: Path) -> None:
        """Write the model's folder."""
        import skops.io

        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.config, ensure_ascii=False, indent=1)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        skops.io.dump({"estimator": self._estimator, "imputer": self._imputer}, folder / ESTIMATOR)

    @property
    def classes(self) -> list[str]:
        """The labels in the order of the outputs; empty where a number is predicted."""
        return list(self.config["classes"])

    def predict(self, rows: pa.Table) -> np.ndarray:
        """Probabilities, float64 of shape (N, classes), or the predicted numbers, of shape (N, 1).

        Args:
            rows: with the columns of the model's features, each of its own type (see :func:`encode`).
        """
        if not rows.num_rows:
            return np.empty((0, max(1, len(self.classes))))
        return predicted(self._estimator, self.encoded(rows), len(self.classes))

    def encoded(self, rows: pa.Table) -> np.ndarray:
        """What the estimator reads, float32 of shape (N, D)."""
        return scaled(encode(rows, self.config["features"]), self.config["scaling"], self._imputer)


def predicted(estimator: Any, matrix: np.ndarray, classes: int) -> np.ndarray:
    """What a fitted estimator says: probabilities of all ``classes``, or with 0 classes the numbers.

    A class that was not among the rows that it was fitted on has probability 0.
    """
    if not classes:
        return np.asarray(estimator.predict(matrix), dtype=np.float64).reshape(-1, 1)
    found = np.zeros((len(matrix), classes))
    found[:, np.asarray(estimator.classes_, dtype=np.int64)] = estimator.predict_proba(matrix)
    return found


def encode(rows: pa.Table, features: list[dict[str, Any]]) -> np.ndarray:
    """Columns as numbers, float64 of shape (N, D); a missing number is NaN.

    A number or boolean is itself; a date is :data:`DATE_PARTS`; a category is one column for each of the
    frequent categories, one for all others and one with the share of the training rows that had it; a vector
    is its numbers. Columns that had missing values in training have one more, which says that it is missing.
    """
    blocks = [_block(rows.column(feature["name"]).combine_chunks(), feature) for feature in features]
    return np.concatenate(blocks, axis=1)


def _block(column: pa.Array, feature: dict[str, Any]) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    missing = np.asarray(pc.is_null(column, nan_is_null=True), dtype=np.float64).reshape(-1, 1)
    match feature["kind"]:
        case "vector":
            block = _vectors(column, feature["size"])
            missing = np.isnan(block).any(axis=1).astype(np.float64).reshape(-1, 1)
        case "datetime":
            block = _dates(column)
        case "category":
            block = _categories(column, feature)
        case _:
            block = _numbers(column).reshape(-1, 1)
    return np.concatenate([block, missing], axis=1) if feature["missing"] else block


def _numbers(column: pa.Array) -> np.ndarray:
    found = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _dates(column: pa.Array) -> np.ndarray:
    stamps = pc.cast(column, pa.timestamp("us"))
    days = _numbers(pc.cast(stamps, pa.int64())) / 86_400e6
    parts = [pc.year(stamps), pc.month(stamps), pc.day(stamps), pc.day_of_week(stamps), pc.hour(stamps)]
    return np.stack([days, *map(_numbers, parts)], axis=1)


def _categories(column: pa.Array, feature: dict[str, Any]) -> np.ndarray:
    column = pc.cast(column, pa.string())
    names, shares = feature["categories"], feature["shares"]
    places = pc.index_in(column, value_set=pa.array(names, pa.string()))
    place = pc.fill_null(places, -1).to_numpy(zero_copy_only=False)
    present = ~np.asarray(pc.is_null(column), dtype=bool)
    kept = feature["columns"]
    block = np.zeros((len(column), kept + 2))
    frequent = present & (place >= 0) & (place < kept)
    block[np.flatnonzero(frequent), place[frequent]] = 1.0
    block[present & ~frequent, kept] = 1.0
    block[:, kept + 1] = np.append(np.asarray(shares, dtype=np.float64), 0.0)[place]
    return block


def _vectors(column: pa.Array, size: int) -> np.ndarray:
    found = np.full((len(column), size), np.nan)
    present = np.flatnonzero(~np.asarray(pc.is_null(column), dtype=bool))
    if len(present):
        whole = pc.cast(column.take(pa.array(present)), pa.list_(pa.float64(), size))
        found[present] = whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return np.where(np.isfinite(found), found, np.nan)


def scaled(matrix: np.ndarray, scaling: dict[str, Any], imputer: Any = None) -> np.ndarray:
    """``matrix`` without gaps, each column with mean 0 and deviation 1 over the training rows; float32."""
    matrix = matrix.copy()
    if imputer is not None:
        places = scaling["imputed"]
        matrix[:, places] = imputer.transform(matrix[:, places])
    means, deviations = np.asarray(scaling["means"]), np.asarray(scaling["deviations"])
    matrix = np.where(np.isnan(matrix), means, matrix)
    whole: np.ndarray = ((matrix - means) / deviations).astype(np.float32)
    return whole


class _Pyfunc:
    """The model as MLflow asks it: a data frame in, a data frame out."""

    def __init__(self, model: TableModel) -> None:
        self._model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        import pandas as pd

        features = self._model.config["features"]
        absent = [feature["name"] for feature in features if feature["name"] not in model_input.columns]
        if absent:
            raise ValueError(f"The rows have no column {', '.join(absent)}.")
        columns = {}
        for feature in features:
            type_ = _ARROW.get(feature["kind"]) or pa.list_(pa.float64(), feature["size"])
            values = model_input[feature["name"]]
            if feature["kind"] == "datetime":
                values = pd.to_datetime(values, errors="coerce")
            if feature["kind"] == "category":
                values = values.map(lambda value: value if value is None or value != value else str(value))
            columns[feature["name"]] = pa.array(values, from_pandas=True).cast(type_)
        found = self._model.predict(pa.table(columns))
        if not self._model.classes:
            return pd.DataFrame({"predicted": found[:, 0]}, index=model_input.index)
        best = found.argmax(axis=1)
        return pd.DataFrame(
            {
                "predicted": [self._model.classes[place] for place in best],
                "probability": found[np.arange(len(found)), best],
            },
            index=model_input.index,
        )


def _load_pyfunc(path: str) -> _Pyfunc:
    return _Pyfunc(TableModel.load(Path(path)))
