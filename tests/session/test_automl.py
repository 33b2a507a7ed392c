"""Models of tables through statements: trained, asked, judged, promoted, trained again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from thano_assets.errors import (
    ColumnTypeError,
    DataFileError,
    InvalidOption,
    NameExists,
    ThanoError,
    TrainingDataError,
    UnknownBaseModel,
    UnknownColumn,
    UnknownOption,
    UnsupportedStatement,
)
from thano_assets.resources.environments import open_workspace
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
    workspace = open_workspace(tmp_path_factory.mktemp("automl") / "workspace")
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
        assert [row["metric"] for row in numbers] == ["MAE", "MSE", "RMSE", "R2", "RMSLE", "MAPE"]
        scores = {row["metric"]: float(str(row["score"])) for row in numbers}
        assert scores["R2"] > 0.5
        assert scores["MSE"] == pytest.approx(scores["RMSE"] ** 2)
        assert 0 < scores["MAPE"] < 1
        assert 0 < scores["RMSLE"] < 1
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
        ("FIT MODEL more USING price OPTIONS (text_col='city', label_col='bought') AS SELECT * FROM others", UnsupportedStatement, "FIT MODEL goes on training classifiers of texts"),
        ("BUILD MODEL n USING buys OPTIONS (text_col='city', label_col='bought') AS SELECT * FROM people", UnsupportedStatement, "buys is a model of tables, not a base model"),
        ("BUILD MODEL price USING ElectraEn OPTIONS (text_col='city', objective='replaced_token_detection') AS SELECT * FROM people", NameExists, "price is a regressor .version 1., so it cannot become a base model"),
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


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("SELECT * EXCLUDE (city) FROM others", UnknownColumn, "judges of evaluate_on has no column city"),
        ("SELECT * REPLACE ('x' AS age) FROM others", ColumnTypeError, "age of judges.* is VARCHAR; in the query"),
        ("SELECT * EXCLUDE (price) FROM others", UnknownColumn, "no column price, the label_col"),
        ("SELECT * REPLACE ('x' AS price) FROM others", ColumnTypeError, "price of judges.* is VARCHAR, not a number"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_judge_is_found_before_any_work(
    own: Session, table: str, error: type[ThanoError], message: str
) -> None:
    own.execute(f"CREATE TABLE judges AS {table}")
    kept = sorted(own.workspace.snapshots.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        own.execute(REGRESSOR.format(more="evaluate_on='judges'"))
    assert caught.value.line == 1
    assert sorted(own.workspace.snapshots.rglob("*")) == kept, "no training set was made"


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
    kinds = {row["name"]: row["kind"] for row in rows_of(shared, "LIST MODEL")}
    assert kinds == {"buys": "classifier", "price": "regressor"}
    lineage = rows_of(shared, "SHOW LINEAGE price")
    assert [row["asset"] for row in lineage][-1].endswith("price")  # type: ignore[attr-defined]


def test_the_version_is_described_in_mlflow(shared: Session) -> None:
    told = {}
    for name in ("buys", "price"):
        version = shared._runtime.registry.champion(name)
        assert version is not None
        told[name] = version.description
        card = (version.path.parent / "README.md").read_text(encoding="utf-8")
        _, statement, *described = version.description.split("\n\n")
        assert statement.startswith("```sql\nBUILD MODEL")
        assert "\n\n".join([statement, *described[:2]]) in card
        assert "Trained on 135 rows. On 15 held-out rows: " in version.description
        assert f'load_model("models:/{name}/1")' in version.description
        assert "Base model" not in version.description
    assert "predicts the class in `bought` (VARCHAR): no, yes. Optuna searched" in told["buys"]
    assert "predicts the numbers in `price`. Optuna" in told["price"]
    assert "the best of 2 trials was: " in told["price"]
    assert "| vec | vector | FLOAT[2] |" in told["buys"]


@pytest.mark.parametrize("folder", ["kept", "kept/model"])
def test_its_folder_is_not_uploaded_as_a_classifier_of_texts(
    own: Session, told: Recorder, folder: str
) -> None:
    own.execute(CLASSIFIER.format(more="").replace("max_trials=2", "max_trials=1"))
    assert "Best of 1 trial: gradient-boosted trees (LightGBM)" in told.messages
    version = own._runtime.registry.champion("buys")
    assert version is not None
    shutil.copytree(version.path.parent, own.workspace.data / "kept")
    with pytest.raises(DataFileError, match=f"'{folder}' is a model of tables; UPLOAD MODEL registers"):
        own.execute(f"UPLOAD MODEL up FROM '{folder}'")


# Stands for `mlflow models serve`, of which the web server is left out: answers requests as it does.
SERVED = """
import json, sys
sys.modules['thano_assets'] = None
import mlflow.pyfunc, pandas
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
model = mlflow.pyfunc.load_model(sys.argv[1])
def asked(body, type_):
    try:
        return json.loads(invocations(body, type_, model, model.metadata.get_input_schema()).response)['predictions']
    except MlflowException as error:
        return error.message
asks = json.load(sys.stdin)
said = [asked(ask if isinstance(ask, str) else json.dumps(ask), 'text/csv' if isinstance(ask, str) else 'application/json') for ask in asks]
frame = pandas.read_parquet(sys.argv[2])
frames = [frame, frame.convert_dtypes(dtype_backend='pyarrow'), frame.astype({'age': 'Int64', 'city': 'category'})]
print(json.dumps([said, [model.predict(one).to_dict('records') for one in frames]]))
"""


def served(session: Session, model: str, asks: list[object], rows: Path) -> tuple[list[object], list[object]]:
    """What MLflow's server says to each request, and its Python function to the data frame of a file."""
    version = session._runtime.registry.champion(model)
    assert version is not None
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(version.path.parent), str(rows)],
        input=json.dumps(asks),
        capture_output=True,
        text=True,
        cwd=rows.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, frames = json.loads(done.stdout.splitlines()[-1])
    return said, frames


def test_mlflow_says_what_predict_says_in_a_process_that_never_heard_of_us(
    shared: Session, tmp_path: Path
) -> None:
    table = """SELECT * FROM (VALUES
        (31, 'Oslo', true, TIMESTAMP '2024-05-06 07:08:09.5', '2024-3-4', [0.78, 0.48]::FLOAT[2]),
        (62, 'Atlantis', false, '2024-01-02', 'no day', [1, NULL]), (NULL, 'Bern', NULL, NULL, NULL, NULL),
        (45, '5', NULL, '9999-12-31', '2024-03-04T05:06:07Z', [1.3, 0.1])) t(age, city, flag, booked, seen, vec)"""
    rows: list[dict[str, object]] = [
        {"age": 31, "city": "Oslo", "flag": True, "booked": "2024-05-06T07:08:09.5", "seen": "2024-3-4", "vec": [0.78, 0.48]},
        {"age": 62, "city": "Atlantis", "flag": False, "booked": "2024-01-02", "seen": "no day", "vec": [1, None]},
        {"age": None, "city": "Bern", "flag": None, "booked": None, "seen": None, "vec": None},
        {"age": 45, "city": 5, "flag": None, "booked": "9999-12-31", "seen": "2024-03-04T05:06:07Z", "vec": [1.3, 0.1]},
    ]  # fmt: skip
    shared.execute(table).df().to_parquet(tmp_path / "rows.parquet")
    columns = list(rows[0])
    even = [{**row, "vec": row["vec"] or [None, None]} for row in rows]  # MLflow makes arrays of columns
    asks: list[object] = [
        {"dataframe_records": rows},
        {"dataframe_split": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}},
        {"inputs": {name.upper(): [row[name] for row in even] for name in columns}},
        {"instances": even},
        {"dataframe_records": [{key: value for key, value in rows[0].items() if key != "flag"}]},
        {"dataframe_records": [{**rows[0], "age": "31"}]},
        {"dataframe_records": [{**rows[0], "vec": [1.0]}]},
        {"dataframe_records": []},
    ]
    version = shared._runtime.registry.champion("buys")
    assert version is not None
    asks.append(json.loads((version.path.parent / "serving_input_example.json").read_text()))
    said, frames = served(shared, "buys", asks, tmp_path / "rows.parquet")
    ours = rows_of(shared, f"PREDICT USING buys AS {table}")
    expected = [{name: row[name] for name in ("predicted", "probability")} for row in ours]
    assert [*said[:4], *frames] == 7 * [expected]
    assert "no column flag, which the model reads" in str(said[4])
    assert "column age does not hold" in str(said[5])
    assert "has not 2 numbers" in str(said[6])
    assert said[7] == []
    (example,) = cast("list[dict[str, object]]", said[8])
    assert set(example) == {"predicted", "probability"}


def test_mlflow_serves_csv_and_gives_labels_their_type(own: Session, tmp_path: Path) -> None:
    own.execute(
        "BUILD MODEL buys USING AutomlClassifier OPTIONS (target_col='bit', max_trials=1) AS "
        "SELECT age, city, flag, booked, bought = 'yes' AS bit FROM people"
    )
    own.execute("SELECT * FROM others LIMIT 3").df().to_parquet(tmp_path / "rows.parquet")
    csv = "age,city,flag,booked\n31,Oslo,true,2024-05-06\n,Atlantis,,\n60,,false,2024-01-02\n"
    (said,), _frames = served(own, "buys", [csv], tmp_path / "rows.parquet")
    ours = rows_of(
        own,
        "PREDICT USING buys AS SELECT * FROM (VALUES (31, 'Oslo', true, DATE '2024-05-06'), "
        "(NULL, 'Atlantis', NULL, NULL), (60, NULL, false, '2024-01-02')) t(age, city, flag, booked)",
    )
    assert said == [{name: row[name] for name in ("predicted", "probability")} for row in ours]
    assert isinstance(ours[0]["predicted"], bool)


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
