"""Models of tables through statements: trained, asked, judged, promoted, trained again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from thano_assets.errors import (
    ColumnTypeError,
    InvalidOption,
    ThanoError,
    TrainingDataError,
    UnknownBaseModel,
    UnknownColumn,
    UnknownOption,
    UnsupportedStatement,
)
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

from .conftest import Recorder, traces

# A rule with noise: 150 rows of numbers, categories, booleans, dates, gaps and a vector.
ROWS = """CREATE OR REPLACE TABLE {name} AS
SELECT i AS id, CASE WHEN i % 9 = 0 THEN NULL ELSE a END AS age, city, flag,
  DATE '2024-01-01' + CAST(i % 300 AS INTEGER) AS booked, strftime(DATE '2024-03-01' + CAST(i % 90 AS INTEGER), '%Y-%m-%d') AS seen,
  [a / 50, b]::FLOAT[2] AS vec, CAST(2 * a + 30 * (city = 'Oslo')::INTEGER + b AS DOUBLE) AS price,
  CASE WHEN a + 20 * (city = 'Oslo')::INTEGER + 3 * b > 50 THEN 'yes' ELSE 'no' END AS bought
FROM (SELECT i, 20 + hash(i, {salt}) % 50 AS a, (hash(i, 2, {salt}) % 100) / 50.0 - 1 AS b,
  ['Oslo', 'Rome', 'Bern'][1 + CAST(hash(i, 3, {salt}) % 3 AS INTEGER)] AS city, hash(i, 4) % 2 = 0 AS flag FROM range({rows}) r(i))"""
CLASSIFIER = "BUILD MODEL buys USING AutomlClassifier OPTIONS (target_col='bought', features_to_drop=['id', 'price'], datetime_attribs=['seen'], max_trials=2, {more}) AS SELECT * FROM people"
REGRESSOR = "BUILD MODEL price USING AutomlRegressor OPTIONS (target_col='price', features_to_drop=['id', 'bought', 'seen'], max_trials=2, {more}) AS SELECT * FROM people"


def fill(session: Session) -> None:
    session.execute(ROWS.format(name="people", rows=150, salt=1))
    session.execute(ROWS.format(name="others", rows=60, salt=2))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Session]:
    """A session with both models, for tests that change neither."""
    workspace = Workspace.open(tmp_path_factory.mktemp("automl") / "workspace")
    shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
    with Session(workspace, progress=Recorder()) as session:
        fill(session)
        session.execute(CLASSIFIER.format(more=""))
        session.execute(REGRESSOR.format(more=""))
        yield session


@pytest.fixture
def own(tracked_workspace: Workspace, told: Recorder) -> Iterator[Session]:
    with Session(tracked_workspace, progress=told) as session:
        fill(session)
        yield session


def rows_of(session: Session, text: str) -> list[dict[str, object]]:
    table = session.execute(text).table
    assert table is not None
    return table.to_pylist()


class TestAsking:
    def test_classes_come_as_those_of_text_models_do(self, shared: Session) -> None:
        result = shared.execute("PREDICT USING buys OPTIONS (target_col='bought') AS SELECT * FROM others")
        assert result.table is not None
        rows = result.table.to_pylist()
        assert list(rows[0])[-3:] == ["predicted", "probability", "probabilities"]
        assert [row["id"] for row in rows] == list(range(60))
        right = sum(row["predicted"] == row["bought"] for row in rows)
        assert right > 45
        assert f"{right} of them right" in result.summary

    def test_numbers_come_in_one_column(self, shared: Session) -> None:
        result = shared.execute("PREDICT USING price OPTIONS (label_col='price') AS SELECT * FROM others")
        frame = result.df()
        assert list(frame.columns)[-1] == "predicted"
        assert (frame["predicted"] - frame["price"]).abs().mean() < 15
        assert "off on average" in result.summary

    def test_columns_are_found_by_name_and_strangers_are_answered(self, shared: Session) -> None:
        query = "SELECT NULL AS AGE, 'Atlantis' AS city, true AS flag, DATE '2030-01-01' AS booked, 'no day' AS seen, NULL AS vec, 1 AS more"
        result = shared.execute(f"PREDICT USING buys AS {query}")
        assert result.df()["predicted"].tolist()[0] in ("yes", "no")
        assert "1 values of seen are no dates and count as missing." in result.warnings

    def test_no_rows_give_no_rows(self, shared: Session) -> None:
        assert shared.execute("PREDICT USING price AS SELECT * FROM others WHERE id < 0").row_count == 0

    def test_they_are_measured_on_their_own_column(self, shared: Session) -> None:
        numbers = rows_of(shared, "EVALUATE USING price AS SELECT * FROM others")
        assert [row["metric"] for row in numbers] == ["MAE", "RMSE", "R2"]
        assert float(str(numbers[2]["score"])) > 0.5
        classes = {
            row["metric"]: row["score"]
            for row in rows_of(shared, "EVALUATE USING buys AS SELECT * FROM others")
        }
        assert classes["Accuracy"] > 0.75  # type: ignore[operator]
        cells = rows_of(shared, "EVALUATE USING buys OPTIONS (report='confusion') AS SELECT * FROM others")
        assert sum(int(str(cell["rows"])) for cell in cells) == 60

    def test_rows_of_the_training_are_told(self, shared: Session) -> None:
        result = shared.execute("EVALUATE USING buys AS SELECT * FROM people")
        assert any("135 of the 150 rows were among those" in text for text in result.warnings)
        with pytest.raises(TrainingDataError, match="135 of the query's 150 rows"):
            shared.execute("EVALUATE USING buys OPTIONS (strict=True) AS SELECT * FROM people")


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        ("PREDICT USING price AS SELECT * EXCLUDE (age, city) FROM others", UnknownColumn, "no column age, city, which price"),
        ("PREDICT USING price AS SELECT * REPLACE (CAST(age AS VARCHAR) AS age) FROM others", ColumnTypeError, "Column age is VARCHAR"),
        ("PREDICT USING price AS SELECT * REPLACE ([1.0]::FLOAT[1] AS vec) FROM others", ColumnTypeError, "Column vec is FLOAT"),
        ("PREDICT USING price OPTIONS (text_col='city') AS SELECT * FROM others", InvalidOption, "text_col is about texts"),
        ("EVALUATE USING price OPTIONS (report='roc') AS SELECT * FROM others", InvalidOption, "price VERSION 1 predicts numbers"),
        ("EVALUATE USING price OPTIONS (target_col='city') AS SELECT * FROM others", ColumnTypeError, "predicts numbers"),
        ("EVALUATE USING price AS SELECT * EXCLUDE (price) FROM others", UnknownColumn, "no column price"),
        ("EXPLAIN PREDICT USING buys OPTIONS (text_col='city') AS SELECT * FROM others", UnsupportedStatement, "tells the words of a text"),
        ("CONVERT USING buys OPTIONS (text_col='city') AS SELECT * FROM others", UnsupportedStatement, "makes no embeddings"),
        ("FIT MODEL more USING price OPTIONS (text_col='city', label_col='bought') AS SELECT * FROM others", UnsupportedStatement, "not trained on"),
        ("BUILD MODEL n USING AutomlRegressor OPTIONS (target_col='city') AS SELECT * FROM people", ColumnTypeError, "city is VARCHAR, not a number"),
        ("BUILD MODEL n USING AutomlRegressor OPTIONS (target_col='prise') AS SELECT * FROM people", UnknownColumn, "prise"),
        ("BUILD MODEL n USING AutomlClassifier OPTIONS (target_col='bought', features_to_drop=['nam']) AS SELECT * FROM people", UnknownColumn, "features_to_drop names nam"),
        ("BUILD MODEL n USING AutomlClassifier OPTIONS (target_col='bought', datetime_attribs=['age']) AS SELECT * FROM people", ColumnTypeError, "neither text nor a date"),
        ("BUILD MODEL n USING AutomlClassifier OPTIONS (target_col='bought') AS SELECT bought FROM people", TrainingDataError, "no column to predict bought from"),
        ("BUILD MODEL n USING AutomlClassifier OPTIONS (text_col='city') AS SELECT * FROM people", UnknownOption, "no option text_col"),
        ("BUILD MODEL n USING automlclassifier AS SELECT * FROM people", UnknownBaseModel, "no base model automlclassifier"),
        ("BUILD MODEL n USING AutomlRegressor OPTIONS (target_col='price') AS SELECT * FROM people LIMIT 5", TrainingDataError, "5 rows are too few"),
        ("BUILD MODEL n USING AutomlRegressor OPTIONS (target_col='y') AS SELECT *, CASE WHEN id > 3 THEN id END AS y FROM people", TrainingDataError, "4 of 150 rows have no number"),
        ("BUILD MODEL n USING AutomlRegressor OPTIONS (target_col='price', promote_if='accuracy > 1') AS SELECT * FROM people", InvalidOption, "accuracy, which is not a metric"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_left(
    shared: Session, statement: str, error: type[ThanoError], message: str
) -> None:
    before = traces(shared)
    with pytest.raises(error, match=message):
        shared.execute(statement)
    assert traces(shared) == before


def test_the_run_keeps_trials_figures_and_pictures(shared: Session) -> None:
    registry = shared._runtime.registry
    version = registry.champion("price")
    assert version is not None
    assert set(version.metrics) == {"mae", "rmse", "r2", "baseline_mae", "baseline_rmse"}
    files = [file.path for file in registry.client.list_artifacts(version.run_id)]
    assert {"trials.json", "importance.json", "figures"} <= set(files)
    pictures = {file.path for file in registry.client.list_artifacts(version.run_id, "figures")}
    assert pictures == {f"figures/{name}.png" for name in ("search", "importance", "residuals")}
    curve = rows_of(shared, "SHOW TRAINING OF MODEL price")
    assert [row["step"] for row in curve] == [1, 2]
    assert all(float(str(row["loss"])) <= float(str(row["eval_loss"])) for row in curve)
    made = {row["item"]: row["value"] for row in rows_of(shared, "SHOW CREATE MODEL price")}
    assert made["base"] == "AutomlRegressor"
    assert "r2" in rows_of(shared, "LIST MODEL")[0]
    lineage = rows_of(shared, "SHOW LINEAGE price")
    assert [row["asset"] for row in lineage][-1].endswith("price")  # type: ignore[attr-defined]


def test_mlflow_loads_it_in_a_process_that_never_heard_of_us(shared: Session) -> None:
    version = shared._runtime.registry.champion("buys")
    assert version is not None
    shared.execute("SELECT * FROM others LIMIT 5").df().to_parquet(
        version.path.parent.parent / "rows.parquet"
    )
    code = (
        "import sys; sys.modules['thano_assets'] = None; import json, pandas, mlflow.pyfunc; "
        f"model = mlflow.pyfunc.load_model({str(version.path.parent)!r}); "
        f"rows = pandas.read_parquet({str(version.path.parent.parent / 'rows.parquet')!r}); "
        "print(json.dumps(model.predict(rows)['predicted'].tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=version.path.parent, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours = shared.execute("PREDICT USING buys AS SELECT * FROM others LIMIT 5").df()["predicted"].tolist()
    assert json.loads(done.stdout.splitlines()[-1]) == ours


class TestVersions:
    def test_the_same_rows_are_not_trained_on_again_and_a_change_says_why(self, own: Session) -> None:
        own.execute(REGRESSOR.format(more=""))
        assert [step.runs for step in own.script(own.parse(REGRESSOR.format(more="")))] == [False]
        (step,) = own.script(own.parse(REGRESSOR.format(more="impute_type='iterative'")))
        assert step.planned[-1].reason == "impute_type changed from 'simple' to 'iterative'"
        own.execute(ROWS.format(name="people", rows=149, salt=1))
        (step,) = own.script(own.parse(REGRESSOR.format(more="")))
        assert step.runs
        assert "1 row of the training set removed" in " ".join(one.reason for one in step.planned)

    def test_it_is_trained_again_trial_by_trial_and_comes_out_equal(self, own: Session) -> None:
        own.execute(REGRESSOR.format(more="time_left_for_this_task=1"))
        rows = {row["what"]: row["equal"] for row in rows_of(own, "REBUILD MODEL price VERIFY")}
        assert all(rows[what] for what in ("training rows", "weights", "predictions", "rmse"))
        own.execute("REBUILD MODEL price")
        versions = own._runtime.registry.versions("price")
        assert [version.version for version in versions] == [1, 2]
        assert versions[0].data_version == versions[1].data_version
        own.execute("PROMOTE MODEL price VERSION 1")
        assert own.execute("PREDICT USING price VERSION 2 AS SELECT * FROM others").row_count == 60

    def test_a_worse_one_does_not_answer(self, own: Session) -> None:
        own.execute(REGRESSOR.format(more=""))
        worse = REGRESSOR.format(more="overwrite=True, promote_if='rmse < champion', evaluate_on='others'")
        result = own.execute(
            worse.replace(
                "SELECT * FROM people", "SELECT * REPLACE (0.0 AS age, [0, 0]::FLOAT[2] AS vec) FROM people"
            )
        )
        assert result.rows is not None
        assert result.rows.to_pylist()[0]["status"] == "not promoted"
        champion = own._runtime.registry.champion("price")
        assert champion is not None
        assert champion.version == 1
        with pytest.raises(TrainingDataError, match="cannot be held against the old one"):
            own.execute(worse.replace("SELECT * FROM people", "SELECT * EXCLUDE (city) FROM people"))

    def test_a_script_builds_and_asks_in_one_go(self, own: Session) -> None:
        text = (
            f"{CLASSIFIER.format(more='')}; CREATE TABLE said AS PREDICT USING buys AS SELECT * FROM others"
        )
        assert [step.runs for step in own.script(own.parse(text))] == [True, True]
        list(own.run(text))
        assert rows_of(own, "SELECT count(*) AS n FROM said") == [{"n": 60}]
        assert [step.runs for step in own.script(own.parse(text))] == [False, False]

    def test_ctrl_c_leaves_nothing(self, own: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        from thano_assets.learning.tables import search

        def stop(*_: object) -> float:
            raise KeyboardInterrupt

        monkeypatch.setattr(search, "_judged", stop)
        before = traces(own)
        with pytest.raises(KeyboardInterrupt):
            own.execute(REGRESSOR.format(more=""))
        after = traces(own)
        assert (after["models"], after["tables"]) == (before["models"], before["tables"])
        run = own._runtime.registry.newest_training("price")
        assert run is not None
        assert run.status == "killed"
