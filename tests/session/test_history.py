"""SHOW LINEAGE and SHOW RUNS: from a prediction back to the file, and what ran, by whom, with which error."""

from __future__ import annotations

from contextlib import suppress

import dagster as dg
import pytest

from tests.session.conftest import write_rows
from thano_assets.errors import ThanoError, UnknownTable
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session


def rows(session: Session, text: str) -> list[dict[str, object]]:
    return session.execute(text).arrow().to_pylist()


def test_the_way_of_a_prediction_leads_back_to_the_file(session: Session, small_workspace: Workspace) -> None:
    train = [
        {"text": "ab "[: 2 + n % 2] * 3, "label": "negative" if n % 2 else "positive"} for n in range(20)
    ]
    write_rows(small_workspace, "train.jsonl", train)
    session.execute(
        """
        COPY reviews FROM 'train.jsonl';
        BUILD MODEL m USING ElectraEn OPTIONS (max_epochs=1, baseline=False) AS SELECT text, label FROM reviews;
        CREATE TABLE answers AS PREDICT USING m AS SELECT text FROM reviews LIMIT 5
        """
    )
    found = rows(session, "SHOW LINEAGE answers")
    assert {row["asset"] for row in found} == {
        "raw/reviews",
        "tables/reviews",
        "training_sets/m",
        "models/m",
        "predictions/answers",
    }
    order = [row["asset"] for row in found]
    assert order.index("raw/reviews") < order.index("tables/reviews") < order.index("training_sets/m")
    assert order.index("training_sets/m") < order.index("models/m") < order.index("predictions/answers") == 4
    by_asset = {row["asset"]: row for row in found}
    assert by_asset["raw/reviews"]["files"] == "train.jsonl"
    assert by_asset["tables/reviews"]["rows"] == 20
    assert by_asset["predictions/answers"]["rows"] == 5
    model = by_asset["models/m"]
    version = session._runtime.registry.resolve("m")
    assert version is not None
    assert (model["model_version"], model["mlflow_run_id"]) == (1, version.run_id)
    assert model["data_version"] == version.tags["thano.data_version"]
    assert str(by_asset["predictions/answers"]["statement"]).startswith(
        "CREATE TABLE answers AS PREDICT USING m"
    )
    instance = dg.DagsterInstance.from_config(str(small_workspace.dagster_home))
    for row in found:
        assert row["data_version"]
        assert row["time"] is not None
        assert row["out_of_date"] is None
        assert instance.get_run_by_id(str(row["run_id"])) is not None
    assert rows(session, "SHOW LINEAGE m")[-1]["asset"] == "models/m"


@pytest.fixture
def chain(workspace: Workspace) -> Session:
    write_rows(workspace, "a.jsonl", [{"n": 1}])
    session = Session(workspace)
    session.execute("COPY 표 FROM 'a.jsonl'; CREATE TABLE b AS SELECT n + 1 AS n FROM 표")
    return session


def test_what_is_out_of_date_says_why(chain: Session) -> None:
    write_rows(chain.workspace, "a.jsonl", [{"n": 1}, {"n": 2}])
    found = {row["asset"]: row["out_of_date"] for row in rows(chain, "SHOW LINEAGE b")}
    assert list(found) == ["raw/표", "tables/표", "tables/b"]
    assert all(found.values())
    assert rows(chain, "SELECT count(*) AS n FROM b") == [{"n": 1}]


def test_an_unknown_name_is_an_error_in_its_place(chain: Session) -> None:
    with pytest.raises(UnknownTable) as caught:
        chain.execute("SHOW LINEAGE  c")
    assert (caught.value.line, caught.value.column) == (1, 15)
    assert caught.value.hint == "The tables and models are: b, 표."


def test_runs_say_what_they_made_and_why_they_failed(chain: Session) -> None:
    with pytest.raises(ThanoError):
        chain.execute("CREATE TABLE c AS SELECT CAST('x' || n AS INTEGER) AS m FROM b")
    newest, *others = rows(chain, "SHOW RUNS")
    assert (newest["statement"], newest["status"], newest["assets"]) == (
        "CREATE TABLE c AS SELECT CAST('x' || n AS INTEGER) AS m FROM b",
        "failure",
        "tables/c",
    )
    assert "Could not convert" in str(newest["error"])
    assert "\n" not in str(newest["error"])
    assert "thano_assets" not in str(newest["error"])
    assert [(row["statement"], row["status"], row["assets"]) for row in others] == [
        ("CREATE TABLE b AS SELECT n + 1 AS n FROM 표", "success", "tables/b"),
        ("COPY 표 FROM 'a.jsonl'", "success", "raw/표, tables/표"),
    ]
    for row in (newest, *others):
        assert row["launched_by"] == "thano"
        assert row["started"] is not None
    assert all(row["error"] is None for row in others)


@pytest.mark.parametrize(
    ("tags", "who"),
    [
        ({"dagster/schedule_name": "tables__t"}, "schedule tables__t"),
        ({"dagster/sensor_name": "watch_tables__t"}, "sensor watch_tables__t"),
        ({}, "Dagster UI"),
    ],
)
def test_runs_that_nobody_asked_for_say_who_launched_them(
    chain: Session, tags: dict[str, str], who: str
) -> None:
    instance = dg.DagsterInstance.from_config(str(chain.workspace.dagster_home))
    instance.create_run_for_job(dg.GraphDefinition("other").to_job(), tags=tags)
    newest = rows(chain, "SHOW RUNS")[0]
    assert (newest["launched_by"], newest["status"], newest["seconds"]) == (who, "not_started", None)


def test_the_broken_expectation_is_the_error_of_its_run(chain: Session) -> None:
    chain.execute("EXPECT n < 2 ON b")
    with suppress(ThanoError):
        chain.execute("CREATE OR REPLACE TABLE b AS SELECT n + 1 AS n FROM 표")
    assert rows(chain, "SHOW RUNS")[0]["error"] == "1 of 1 row of b breaks EXPECT n < 2."
