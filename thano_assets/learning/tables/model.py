"""A trained model of a table: rows of columns in, predictions out.

This file goes along with every such model into MLflow as ``thano_table_model.py``, so it stands by itself:
it needs numpy, pyarrow, pandas, skops, scikit-learn and LightGBM, and nothing of this package.

A model's folder holds ``config.json`` (which columns, and how each becomes numbers) and ``model.skops`` (the
fitted estimator). skops builds objects of types that are named below and of no others; nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
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
# How a text is a moment to DuckDB: year, month and day, maybe a time; an offset is read and means nothing.
_MOMENT = re.compile(
    r"(\d{1,6})([-/\\ ])(\d{1,2})\2(\d{1,2})"
    r"(?:(?:T| +)(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d*))?)? *(?:Z|UTC|[+-]\d{2}(?::?\d{2})?)? *)?"
)


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
        found = predicted(self._estimator, self.encoded(rows), len(self.classes))
        temperature = self.config.get("temperature", 1.0)  # fitted on held-out rows, see .calibration
        if not self.classes or temperature == 1.0:
            return found
        powers = found ** (1 / temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

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
    found = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
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
    """The model as MLflow asks it: rows in, a data frame with an answer for each out.

    It says what PREDICT says of the same rows, whichever way they come: a data frame, the JSON and CSV of
    ``mlflow models serve`` (texts for dates, lists for vectors), or columns as a dictionary of lists.

    Args:
        model: answers.
        label_type: DuckDB type of the labels, which answers have too.
    """

    def __init__(self, model: TableModel, label_type: str) -> None:
        self._model = model
        self._labels = [label_of(text, label_type) for text in model.classes]

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        import pandas as pd
        from mlflow.exceptions import MlflowException

        try:
            frame = _frame(model_input)
            found = self._model.predict(_rows(frame, self._model.config["features"]))
        except _Unreadable as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        if not self._model.classes:
            return pd.DataFrame({"predicted": found[:, 0]}, index=frame.index)
        best = found.argmax(axis=1)
        return pd.DataFrame(
            {
                "predicted": [self._labels[place] for place in best],
                "probability": found[np.arange(len(found)), best],
            },
            index=frame.index,
        )


class _Unreadable(Exception):  # noqa: N818 - what is told is MLflow's exception with these words
    """What came is no rows of the model's columns."""


def _frame(rows: Any) -> Any:
    """What MLflow hands over, as a pandas DataFrame."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, dict) and all(isinstance(values, (list, np.ndarray)) for values in rows.values()):
        if len({len(values) for values in rows.values()}) > 1:
            raise _Unreadable("The columns have different numbers of rows.")
        # MLflow makes arrays without dimensions of the values of JSON's "instances".
        plain = lambda one: one.item() if isinstance(one, np.ndarray) and not one.ndim else one  # noqa: E731
        return pd.DataFrame({name: pd.Series([*map(plain, values)]) for name, values in rows.items()})
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return pd.DataFrame(rows)
    raise _Unreadable("The model reads rows with named columns: a data frame, dataframe_records or CSV.")


def _rows(frame: Any, features: list[dict[str, Any]]) -> pa.Table:
    """The columns of a data frame as :func:`encode` takes them, found by name in any case."""
    if not len(frame) and not len(frame.columns):
        frame = frame.reindex(columns=[feature["name"] for feature in features])
    folded = {str(name).casefold(): place for place, name in reversed([*enumerate(frame.columns)])}
    exact = {name: place for place, name in reversed([*enumerate(frame.columns)])}
    places = [exact.get(one["name"], folded.get(one["name"].casefold())) for one in features]
    absent = [one["name"] for one, place in zip(features, places, strict=True) if place is None]
    if absent:
        raise _Unreadable(f"The rows have no column {', '.join(absent)}, which the model reads.")
    columns = {}
    for feature, place in zip(features, places, strict=True):
        try:
            columns[feature["name"]] = _read(frame.iloc[:, place], feature)
        except (TypeError, ValueError, OverflowError) as error:
            wanted = f"{feature['size']} numbers" if feature["kind"] == "vector" else feature["kind"]
            raise _Unreadable(
                f"The column {feature['name']} does not hold what the model reads there ({wanted}): {error}"
            ) from None
    return pa.table(columns)


def _read(series: Any, feature: dict[str, Any]) -> pa.Array:
    """A column of a data frame as DuckDB would hand it over; ``None``, NaN and NaT are missing."""
    kind = feature["kind"]
    present = series.notna().tolist()
    values = [value if known else None for value, known in zip(series.tolist(), present, strict=True)]
    if kind == "category":
        whole = not all(present) and all(
            isinstance(one, float) and one.is_integer() for one in values if one is not None
        )
        return pa.array(
            [None if one is None else _text(int(one) if whole else one) for one in values], pa.string()
        )
    if kind == "datetime":
        return pa.array([None if one is None else _moment(one) for one in values], pa.timestamp("us"))
    if kind == "vector":
        type_ = pa.list_(pa.float32(), feature["size"])
        return pa.array([None if one is None else _numbers_of(one, feature["size"]) for one in values], type_)
    numbers = [None if one is None else _number(one) for one in values]
    if kind == "boolean":
        numbers = [None if one is None else float(one != 0) for one in numbers]
    return pa.array(numbers, pa.float64())


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is text.")
    return float(value)


def _text(value: Any) -> str:
    """As DuckDB writes it."""
    if isinstance(value, (list, dict, tuple, np.ndarray)):
        raise TypeError(f"{value!r} is no single value.")
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)


def _moment(value: Any) -> datetime | None:
    """A date or time, without its time zone as in DuckDB; ``None`` for a text that DuckDB takes for none."""
    if isinstance(value, str):
        found = _MOMENT.fullmatch(value)
        if found is None:
            return None
        year, month, day, hour, minute, second = (int(found[place] or 0) for place in (1, 3, 4, 5, 6, 7))
        try:
            return datetime(year, month, day, hour, minute, second, int((found[8] or "")[:6].ljust(6, "0")))
        except ValueError:
            return None
    if isinstance(value, datetime):
        plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return datetime.fromisoformat(plain.isoformat(timespec="microseconds"))  # of pandas' own type
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    raise TypeError(f"{value!r} is no date.")


def _numbers_of(value: Any, size: int) -> list[float]:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is text.")
    found = np.asarray(value, dtype=np.float32)
    if found.shape != (size,):
        raise ValueError(f"{value!r} has not {size} numbers.")
    return list(found.tolist())


def label_of(text: str, type_: str) -> Any:
    """A label as Python has it: a number or boolean where its DuckDB type is one, else its text."""
    if type_ == "BOOLEAN":
        return text == "true"
    if type_.endswith("INT") or type_ in ("INTEGER", "UINTEGER"):
        return int(text)
    return float(text) if type_ in ("FLOAT", "DOUBLE") or type_.startswith("DECIMAL") else text


def _load_pyfunc(path: str) -> _Pyfunc:
    labels = Path(path).parent / "labels.json"
    type_ = json.loads(labels.read_text(encoding="utf-8"))["type"] if labels.is_file() else "VARCHAR"
    return _Pyfunc(TableModel.load(Path(path)), type_)
