"""Models of tables: columns to numbers, the search, and what is kept of a model."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from thano_assets.errors import TrainingDataError
from thano_assets.learning.tables import encoder, search
from thano_assets.learning.tables.learners import state
from thano_assets.learning.tables.model import TableModel, encode
from thano_assets.learning.tables.report import regression_scores, regression_table
from thano_assets.learning.tables.settings import TableSettings
from thano_assets.learning.tables.train import TableResult, train
from thano_assets.progress import SILENT

FEATURES: list[dict[str, Any]] = [
    {"name": "size", "kind": "number"},
    {"name": "city", "kind": "category"},
    {"name": "day", "kind": "datetime"},
    {"name": "vec", "kind": "vector", "size": 3},
    {"name": "noise", "kind": "boolean"},
]


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """240 rows whose class and number follow from size, city and the vector, with gaps and some noise."""
    rng = np.random.default_rng(5)
    size, city = rng.normal(50, 10, 240), rng.choice(["north", "south", "west"], 240)
    vec = rng.normal(size=(240, 3)).astype(np.float32)
    number = (size - 50) / 10 + 2 * (city == "west") + vec[:, 0] + rng.normal(0, 0.2, 240)
    gap = np.arange(240) % 13 == 0
    days = [dt.datetime(2024, 1, 1) + dt.timedelta(days=int(day)) for day in rng.integers(0, 500, 240)]
    return pa.table(
        {
            "size": pa.array(np.where(gap, np.nan, size), from_pandas=True),
            "city": pa.array([None if place % 17 == 0 else str(name) for place, name in enumerate(city)]),
            "day": pa.array(days, pa.timestamp("us")),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vec.ravel()), 3),
            "noise": pa.array(rng.integers(0, 2, 240).astype(np.float64)),
            "label": pa.array(np.where(number > 0.6, "yes", "no")),
            "number": pa.array(number),
        }
    )


def build(rows: pa.Table, folder: Path, task: str, **settings: Any) -> TableResult:
    regression = task == "regression"
    return train(
        rows,
        "number" if regression else "label",
        FEATURES,
        [] if regression else ["no", "yes"],
        TableSettings(task, **{"max_trials": 3, "eval_fraction": 0.2, **settings}),
        output_dir=folder,
        progress=SILENT,
        on_metrics=lambda figures, step: None,
    )


def test_a_classifier_learns_the_rule_and_names_the_columns_that_matter(
    rows: pa.Table, tmp_path: Path
) -> None:
    result = build(rows, tmp_path, "classification")
    assert result.metrics["accuracy"] > result.metrics["majority_accuracy"] + 0.2
    assert (result.rows_train, result.rows_eval) == (192, 48)
    assert {name for name, _ in result.importance[:3]} == {"size", "city", "vec"}
    assert [one.number for one in result.found.trials] == [1, 2, 3]
    model = TableModel.load(tmp_path)
    said = model.predict(rows)
    assert said.shape == (240, 2)
    assert said.sum(axis=1) == pytest.approx(np.ones(240))


def test_a_regressor_beats_the_mean(rows: pa.Table, tmp_path: Path) -> None:
    result = build(rows, tmp_path, "regression")
    assert result.metrics["rmse"] < 0.6 * result.metrics["baseline_rmse"]
    assert result.metrics["r2"] > 0.6
    assert TableModel.load(tmp_path).predict(rows.slice(0, 7)).shape == (7, 1)


def test_the_same_rows_and_settings_give_the_same_model(rows: pa.Table, tmp_path: Path) -> None:
    first, second = (
        build(rows, tmp_path / name, "regression", impute_type="iterative", max_trials=6) for name in "ab"
    )
    other = build(rows, tmp_path / "c", "regression", seed=7)
    assert first.digest == second.digest != other.digest
    assert np.array_equal(first.held_out, second.held_out)
    assert [one.loss for one in first.found.trials] == [one.loss for one in second.found.trials]


def test_a_search_cut_short_is_the_beginning_of_the_whole_one(rows: pa.Table, tmp_path: Path) -> None:
    short = build(rows, tmp_path / "a", "regression", time_budget=0, max_trials=5)
    assert short.found.cut_short
    assert len(short.found.trials) == 1  # one is always tried
    again = build(rows, tmp_path / "b", "regression", time_budget=None, max_trials=1)
    assert not again.found.cut_short
    assert again.digest == short.digest


@pytest.mark.parametrize("method", ["knn", "iso", "pca"])
def test_outliers_are_left_out_of_the_training_only(rows: pa.Table, tmp_path: Path, method: str) -> None:
    result = build(rows, tmp_path, "classification", outlier_method=method, max_trials=1)
    assert 0 < result.outliers <= 0.05 * 192
    assert result.rows_train == 192 - result.outliers
    assert result.rows_eval == 48


def test_what_training_did_not_see_is_answered(rows: pa.Table, tmp_path: Path) -> None:
    build(rows, tmp_path, "classification", max_trials=1)
    strange = pa.table(
        {
            "size": pa.array([None, float("inf")], pa.float64()),
            "city": pa.array(["atlantis", None]),
            "day": pa.array([None, None], pa.timestamp("us")),
            "vec": pa.array([None, [0.0, float("nan"), 1.0]], pa.list_(pa.float32(), 3)),
            "noise": pa.array([None, 1.0]),
        }
    )
    assert np.isfinite(TableModel.load(tmp_path).predict(strange)).all()


def test_columns_become_numbers() -> None:
    table = pa.table(
        {"c": pa.array(["a", "a", "b", "b", None, "x"]), "n": pa.array([1.0, None, 3.0, 4.0, 5.0, 6.0])}
    )
    features = [{"name": "c", "kind": "category"}, {"name": "n", "kind": "number"}]
    fitted = encoder.fit(table, features, impute_type="simple", seed=0)
    # a, b, any other, share of the training rows, missing; number, missing
    assert encode(table, fitted.features).tolist()[0] == pytest.approx([1, 0, 0, 2 / 6, 0, 1, 0])
    assert encode(table, fitted.features).tolist()[5] == pytest.approx([0, 0, 1, 1 / 6, 0, 6, 0])
    assert encode(table, fitted.features).tolist()[4] == pytest.approx([0, 0, 0, 0, 1, 5, 0])
    matrix = fitted.transform(table)
    assert matrix.dtype == np.float32
    assert matrix.mean(axis=0) == pytest.approx(np.zeros(7), abs=1e-6)
    assert matrix[1, 5] == pytest.approx(0)  # the mean stands in


def test_a_column_of_names_is_left_out_and_one_of_nothing_too() -> None:
    table = pa.table(
        {"id": [f"row {n}" for n in range(200)], "void": pa.nulls(200, pa.float64()), "n": range(200)}
    )
    features = [
        {"name": "id", "kind": "category"},
        {"name": "void", "kind": "number"},
        {"name": "n", "kind": "number"},
    ]
    fitted = encoder.fit(table, features, impute_type="simple", seed=0)
    assert [one["name"] for one in fitted.features] == ["n"]
    assert set(fitted.left_out) == {"id", "void"}
    with pytest.raises(TrainingDataError, match="No column"):
        train(
            table.append_column("y", pa.array(np.arange(200.0))),
            "y",
            features[:2],
            [],
            TableSettings("regression"),
            output_dir=Path("nowhere"),
            progress=SILENT,
            on_metrics=lambda figures, step: None,
        )


LEARNERS = {
    "lgbm": {"n_estimators": 40, "num_leaves": 8, "min_child_samples": 5},
    "linear": {"strength": 1.0},
    "rf": {"n_estimators": 40, "max_features": 0.5, "min_samples_leaf": 2},
    "extra_tree": {"n_estimators": 40, "max_features": 0.5, "min_samples_leaf": 2},
}


class Clock:
    """Time that goes on by a second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def numbers(classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(150, 6)).astype(np.float32)
    summed = matrix[:, 0] + matrix[:, 1] ** 2
    return matrix, (summed > 1).astype(np.int64) if classes else summed.astype(np.float64)


class TestTimeIsUp:
    @pytest.mark.parametrize("classes", [0, 2])
    @pytest.mark.parametrize("learner", LEARNERS)
    def test_looking_at_the_clock_changes_no_model(self, learner: str, classes: int) -> None:
        matrix, truth = numbers(classes)
        settings = TableSettings("classification" if classes else "regression", class_weight=None)
        same = (matrix, truth, classes, learner, LEARNERS[learner], settings)
        assert state(search.fitted(*same, end=float("inf"))) == state(search.fitted(*same))

    @pytest.mark.parametrize("learner", ["lgbm", "rf", "extra_tree"])
    def test_a_long_fit_is_given_up_amid_it(self, learner: str, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        monkeypatch.setattr(search, "time", clock)
        matrix, truth = numbers(2)
        settings = TableSettings("classification")
        with pytest.raises(search._TimeIsUp):
            search.fitted(matrix, truth, 2, learner, LEARNERS[learner], settings, end=2.5)
        assert clock.now == 3

    def test_what_was_given_up_counts_for_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        matrix, truth = numbers(2)

        def searched(trials: int, budget: int | None) -> search.Found:
            settings = TableSettings("classification", max_trials=trials, time_budget=budget)
            return search.search(matrix, truth, 2, settings, SILENT, lambda figures, step: None)

        whole = searched(3, None)
        with monkeypatch.context() as patched:
            patched.setattr(search, "time", Clock())
            # Two trials are done at the eighth look; the third is a forest, amid whose first fold time is up.
            short = searched(40, 13)
        outcome = [(one.learner, one.params, one.loss) for one in short.trials]
        assert outcome == [(one.learner, one.params, one.loss) for one in whole.trials[: len(outcome)]]
        assert short.cut_short
        assert len(outcome) == 2


def test_a_file_with_types_of_others_is_not_loaded(rows: pa.Table, tmp_path: Path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    build(rows, tmp_path / "good", "classification", max_trials=1)
    bad = shutil.copytree(tmp_path / "good", tmp_path / "bad")
    skops.io.dump(
        {"estimator": FunctionTransformer(func=shutil.rmtree), "imputer": None}, bad / "model.skops"
    )
    with pytest.raises(ValueError, match="not trusted"):
        TableModel.load(bad)


def test_scores_of_numbers() -> None:
    truth, found = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 6.0])
    assert regression_scores(truth, found) == pytest.approx({"mae": 0.5, "rmse": 1.0, "r2": 0.2})
    flat = {row["metric"]: row["score"] for row in regression_table(np.ones(3), np.zeros(3)).to_pylist()}
    assert list(flat) == ["MAE", "MSE", "RMSE", "R2", "RMSLE", "MAPE"]
    assert flat["R2"] is None
    assert (flat["MAE"], flat["MSE"], flat["RMSE"], flat["MAPE"]) == (1, 1, 1, 1)
    assert flat["RMSLE"] == pytest.approx(np.log(2))


def test_the_configuration_is_plain(rows: pa.Table, tmp_path: Path) -> None:
    build(rows, tmp_path, "classification", max_trials=1)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "table"
    assert config["classes"] == ["no", "yes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.skops"]
