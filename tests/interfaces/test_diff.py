"""``thano diff``: what an environment made differently, as rows that a person and a program can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from thano_assets.catalog import catalog_of, entry_of
from thano_assets.commands.diff import compare
from thano_assets.interfaces.cli import cli
from thano_assets.resources.environments import Environment, open_workspace, registry_of
from thano_assets.resources.warehouse import Warehouse
from thano_assets.resources.workspace import Workspace
from thano_assets.sql import parse

Row = tuple[str, str | None, str | None, str | None]


@pytest.fixture
def production(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "workspace")


@pytest.fixture
def trial(production: Workspace) -> Environment:
    environment = open_workspace(production.root, environment="trial")
    assert isinstance(environment, Environment)
    return environment


def make(workspace: Workspace, name: str, rows: str, statement: str | None = None) -> None:
    """Put a table into the warehouse and the statement that would make it into the catalog."""
    with Warehouse.of(workspace).write() as connection:
        connection.execute(f"CREATE OR REPLACE TABLE {name} AS {rows}")
    entry = entry_of(parse(statement or f"CREATE TABLE {name} AS {rows}")[0])
    assert entry is not None
    catalog_of(workspace).put(entry)


def differences(environment: Environment, asset: str, examples: int = 5) -> list[Row]:
    rows = compare(environment, examples).arrow().to_pylist()
    return [
        (row["what"], row["production"], row["environment"], row["change"])
        for row in rows
        if row["asset"] == asset
    ]


def predictions(workspace: Workspace, labels: str, statement: str | None = None) -> None:
    """A prediction table ``p`` over the texts 0, 1, 2, …, with one label for each letter of ``labels``."""
    words = "CASE l WHEN 'p' THEN 'positive' WHEN 'n' THEN 'negative' END"
    rows = (
        f"SELECT 'text ' || i AS text, i // 2 AS n, {words} AS predicted, 0.9 AS probability FROM "
        f"(SELECT unnest(string_split('{labels}', '')) AS l, unnest(range({len(labels)})) AS i)"
    )
    make(workspace, "p", rows, statement or "CREATE TABLE p AS PREDICT USING m AS SELECT * FROM t")


# -- tables --------------------------------------------------------------------------------------------


def test_what_is_borrowed_or_made_alike_does_not_differ(production: Workspace, trial: Environment) -> None:
    assert compare(trial).summary == "trial has made nothing itself: it is production."
    make(production, "a", "SELECT 1 AS x")
    make(production, "b", "SELECT 1 AS x")
    make(trial, "b", "SELECT 1 AS x")
    predictions(production, "pn")
    predictions(trial, "pn")
    result = compare(trial)
    assert result.row_count == 0
    assert result.summary == "2 assets of trial, none differs from production."
    assert result.arrow().column_names == ["asset", "what", "production", "environment", "change"]


def test_rows_of_tables_are_counted_as_often_as_they_stand_there(
    production: Workspace, trial: Environment
) -> None:
    make(production, "T", "SELECT unnest([1, 1, 2, NULL]) AS x")
    make(trial, "t", "SELECT unnest([NULL, 1, 3, 4, 5]) AS x")
    assert differences(trial, "tables/t") == [
        ("statement", None, None, "the query changed"),
        ("rows", "4", "5", "3 added, 2 removed"),
    ]


def test_columns_that_came_and_went(production: Workspace, trial: Environment) -> None:
    make(production, "t", "SELECT 1 AS x, 2 AS y")
    make(trial, "t", "SELECT 1 AS x, 'a' AS y, 3 AS z")
    assert differences(trial, "tables/t")[1:] == [
        ("columns", "2", "3", "y VARCHAR, z INTEGER added; y INTEGER removed")
    ]


def test_what_only_one_side_has(production: Workspace, trial: Environment) -> None:
    make(trial, "mine", "SELECT unnest(range(3)) AS x")
    make(production, "theirs", "SELECT 1 AS x")
    assert [tuple(row.values()) for row in compare(trial).arrow().to_pylist()] == [
        ("tables/mine", "only in trial", None, "3 rows", None)
    ]


def test_a_statement_that_was_changed_and_not_yet_run(production: Workspace, trial: Environment) -> None:
    copy = "COPY t OPTIONS (if_exists='{}') FROM 'a.csv'"
    make(production, "t", "SELECT 1 AS x", "COPY t FROM 'a.csv'")
    for text in ("COPY t FROM 'b.csv'", copy.format("fail").replace("COPY t", "COPY new")):
        entry = entry_of(parse(text)[0])
        assert entry is not None
        catalog_of(trial).put(entry)
    assert differences(trial, "tables/t") == [
        ("statement", None, None, "the path changed from 'a.csv' to 'b.csv', not made yet")
    ]
    assert differences(trial, "tables/new") == [("only in trial", None, None, "defined, not made yet")]


def test_scores_of_evaluations_stand_side_by_side(production: Workspace, trial: Environment) -> None:
    statement = "CREATE TABLE e AS EVALUATE USING m AS SELECT * FROM t"
    scores = "SELECT * FROM (VALUES ('Accuracy', {}), ('Kappa', 0.5)) AS s(metric, score)"
    make(production, "e", scores.format("0.75"), statement)
    make(trial, "e", scores.format("0.8"), statement)
    assert differences(trial, "evaluations/e") == [
        ("Accuracy", "0.7500", "0.8000", "+0.0500"),
        ("Kappa", "0.5000", "0.5000", "+0.0000"),
    ]


# -- labels --------------------------------------------------------------------------------------------


def test_flipped_labels_are_counted_and_shown(production: Workspace, trial: Environment) -> None:
    predictions(production, "ppnnppnn")
    predictions(trial, "pnnpnpn_")
    assert differences(trial, "predictions/p", examples=2) == [
        ("flipped labels", None, None, "4 of 8 rows (50.0%)"),
        ("flipped", "positive", "negative", "2 rows"),
        ("flipped", "negative", "positive", "1 row"),
        ("flipped", "negative", None, "1 row"),
        ("example", "positive", "negative", "text 1"),
        ("example", "negative", "positive", "text 3"),
    ]
    assert "example" not in [row[0] for row in differences(trial, "predictions/p", examples=0)]


def test_rows_are_matched_by_what_the_query_gave_not_by_their_place(
    production: Workspace, trial: Environment
) -> None:
    statement = "CREATE TABLE p AS PREDICT USING m AS SELECT * FROM t"
    make(
        production,
        "p",
        "SELECT * FROM (VALUES ('a', 'x'), ('b', 'y'), (NULL, 'x'), ('b', 'y')) v(text, predicted)",
        statement,
    )
    make(
        trial,
        "p",
        "SELECT * FROM (VALUES ('c', 'x'), ('b', 'y'), (NULL, 'z'), ('a', 'x')) v(text, predicted)",
        statement,
    )
    assert differences(trial, "predictions/p") == [
        ("rows", "4", "4", "1 only in trial, 1 only in production"),
        ("flipped labels", None, None, "1 of 3 rows (33.3%)"),
        ("flipped", "x", "z", "1 row"),
        ("example", "x", "z", None),
    ]


def test_the_label_column_may_have_another_name(production: Workspace, trial: Environment) -> None:
    statement = "CREATE TABLE p AS PREDICT USING m OPTIONS (result_col='{}') AS SELECT * FROM t"
    make(production, "p", "SELECT 'a' AS text, 1 AS old", statement.format("old"))
    make(trial, "p", "SELECT 'a' AS text, 2 AS new", statement.format("new"))
    assert differences(trial, "predictions/p")[-3:] == [
        ("flipped labels", None, None, "1 of 1 row (100.0%)"),
        ("flipped", "1", "2", "1 row"),
        ("example", "1", "2", "a"),
    ]


# -- models --------------------------------------------------------------------------------------------


def register(workspace: Workspace, classifier: Path, epochs: int, rows: str = "r", **metrics: float) -> None:
    tags = {
        "thano.statement": f"BUILD MODEL m USING ElectraEn OPTIONS (epochs={epochs}) AS SELECT * FROM t",
        "thano.data_version": f"{epochs} {rows}",
        "thano.training_set": rows,
    }
    with registry_of(workspace).build("m", tags=tags) as build:
        build.register(classifier, labels={"classes": ["negative", "positive"]}, metrics=metrics)


def test_metrics_of_models_stand_side_by_side(
    production: Workspace, trial: Environment, mlflow_database: Path, classifier: Path
) -> None:
    for place in (production, trial):
        shutil.copy2(mlflow_database, place.mlflow / "mlflow.db")
    register(production, classifier, 3, accuracy=0.8)
    register(trial, classifier, 3, accuracy=0.8)
    assert differences(trial, "models/m") == []
    register(trial, classifier, 1, "other", kappa=0.25, loss=0.5, accuracy=0.825)
    assert differences(trial, "models/m") == [
        ("version", "VERSION 1", "VERSION 2", None),
        ("statement", None, None, "max_epochs changed from 3 to 1"),
        ("training set", None, None, "trained on other rows"),
        ("accuracy", "0.8000", "0.8250", "+0.0250"),
        ("loss", None, "0.5000", None),
        ("kappa", None, "0.2500", None),
    ]
    registry_of(production).delete("m")
    assert differences(trial, "models/m")[0] == ("only in trial", None, "VERSION 2", None)


# -- commands ------------------------------------------------------------------------------------------


def thano(workspace: Workspace, *arguments: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["-w", str(workspace.root), *arguments], input=input)


def test_the_command_prints_rows_and_tells_by_its_exit_code(
    production: Workspace, trial: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions(production, "pp")
    same = thano(production, "--env", "trial", "diff", "--exit-code")
    assert (same.exit_code, same.stdout) == (0, "")
    assert "trial has made nothing itself" in same.stderr
    predictions(trial, "pn")
    shown = thano(production, "diff", "--env", "trial")
    assert shown.exit_code == 0
    assert "flipped labels" in shown.stdout
    assert "1 of 1 asset of trial differs from production." in shown.stderr
    monkeypatch.setenv("THANO_ENV", "trial")
    told = thano(production, "diff", "--format", "json", "--exit-code", "--examples", "0")
    assert told.exit_code == 1
    assert [row["what"] for row in json.loads(told.stdout)] == ["flipped labels", "flipped"]


def test_an_environment_that_is_not_there_is_not_made_by_looking(
    production: Workspace, trial: Environment
) -> None:
    failed = thano(production, "diff", "--env", "trail")
    assert failed.exit_code == 1
    assert "There is no environment trail. Did you mean trial?" in failed.stderr
    assert not (production.root / "environments" / "trail").exists()
    assert "which environment?" in thano(production, "diff").stderr
    refused = thano(production, "sql", "--env", "a/b", "SELECT 1")
    assert refused.exit_code == 1
    assert "'a/b' cannot be the name of an environment." in refused.stderr


def test_statements_go_to_the_environment_that_is_named_before_or_after_the_command(
    production: Workspace,
) -> None:
    first = thano(production, "--env", "one", "sql", "COPY t FROM '[{\"a\": 1}]'")
    assert first.exit_code == 0, first.output
    assert "The environment one is new" in first.stderr
    again = thano(production, "sql", "SELECT a FROM t", "--env", "one", "--format", "csv")
    assert again.stdout == "a\n1\n"
    assert "is new" not in again.stderr
    assert "There is no table t" in thano(production, "sql", "SELECT a FROM t").stderr


def test_environments_are_listed_and_removed(production: Workspace, trial: Environment) -> None:
    open_workspace(production.root, environment="other")
    assert thano(production, "env", "list").stdout == "other\ntrial\n"
    assert thano(production, "env", "remove", "trial", input="n\n").exit_code == 1
    assert trial.root.is_dir()
    assert thano(production, "env", "remove", "trial", "--yes").exit_code == 0
    assert not trial.root.exists()
    assert thano(production, "env", "remove", "other", input="y\n").exit_code == 0
    assert thano(production, "env", "list").stdout == ""
