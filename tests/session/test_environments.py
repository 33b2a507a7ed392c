"""Statements in an environment: what production made is read there, what is made there stays there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.session.conftest import Recorder, traces, write_rows
from thano_assets.errors import BorrowedAsset, NameExists
from thano_assets.orchestration.borrowed_records import (
    borrowed_records,
    is_borrowed,
    note_borrowed,
    with_borrowed,
)
from thano_assets.orchestration.records import read_records
from thano_assets.resources.environments import Environment, open_workspace
from thano_assets.session import Session

BUILD = (
    "BUILD MODEL m USING ElectraEn OPTIONS (text_col='review', label_col='sentiment', epochs={epochs}, "
    "batch_size=8, baseline=False, overwrite=True) AS SELECT * FROM reviews;"
)
PREDICT = "CREATE OR REPLACE TABLE p AS PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews;"
COPY = "COPY reviews OPTIONS (overwrite=True) FROM 'reviews.jsonl';"
FILE = "\n".join([COPY, BUILD.format(epochs=1), PREDICT])

REVIEWS, ROWS, MODEL, ANSWERS = (
    ("tables", "reviews"),
    ("training_sets", "m"),
    ("models", "m"),
    ("predictions", "p"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path, classifier: Path) -> Path:
    """A workspace where the file was run: a table, a model, predictions; to be copied."""
    workspace = open_workspace(tmp_path_factory.mktemp("finished") / "workspace")
    shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
    shutil.copytree(classifier, workspace.models_cache / "google" / "electra-small-discriminator")
    rows: list[dict[str, object]] = [
        {"review": f"good {n}" if n % 2 else f"bad {n}", "sentiment": "positive" if n % 2 else "negative"}
        for n in range(24)
    ]
    write_rows(workspace, "reviews.jsonl", rows)
    with Session(workspace) as session:
        session.execute(FILE)
    return workspace.root


@pytest.fixture
def production(finished: Path, tmp_path: Path) -> Iterator[Session]:
    shutil.copytree(finished, tmp_path / "workspace")
    with Session(tmp_path / "workspace") as session:
        yield session


@pytest.fixture
def trial(production: Session, mlflow_database: Path, told: Recorder) -> Iterator[Session]:
    """A session in an environment of it that has made nothing yet."""
    environment = open_workspace(production.workspace.root, environment="trial")
    (environment.mlflow / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    with Session(environment, progress=told) as session:
        yield session


def run(session: Session, text: str) -> list[str]:
    """What ``thano run`` makes of ``text``: the keys of the assets."""
    made: list[str] = []
    for step in session.script(session.parse(text)):
        made += session.execute_step(step).assets
    return made


def planned(session: Session, text: str) -> dict[str, tuple[str, str]]:
    table = session.plan(text).arrow()
    first: dict[str, tuple[str, str]] = {}
    for row in table.to_pylist():
        first.setdefault(row["asset"], (row["action"], row["reason"]))
    return first


def own_tables(session: Session) -> list[str]:
    return [
        table.name
        for table in session._runtime.warehouse.tables()
        if session._runtime.warehouse.has_own(table.name)
    ]


def fingerprint(folder: Path) -> dict[str, str]:
    """The content of every file of production's that a trial must leave alone."""
    kept = [
        folder / "warehouse.duckdb",
        *(folder / "statements").rglob("*.sql"),
        *(folder / "snapshots").rglob("*.*"),
    ]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept if path.is_file()}


def test_tables_and_models_are_borrowed_and_nothing_of_production_changes(
    production: Session, trial: Session
) -> None:
    before, files = traces(production), fingerprint(production.workspace.root)
    assert trial.execute("SELECT count(*) AS n FROM reviews").arrow().to_pylist() == [{"n": 24}]
    assert trial.execute("LIST MODEL").arrow().column("name").to_pylist() == ["m"]
    result = trial.execute(
        "CREATE TABLE q AS PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews"
    )
    assert result.assets == ["predictions/q"]
    assert result.row_count == 24
    assert own_tables(trial) == ["q"]
    assert trial._runtime.registry.own_models() == []  # type: ignore[attr-defined]
    joined = "SELECT count(*) AS n FROM p JOIN q USING (review) WHERE p.predicted = q.predicted"
    assert trial.execute(joined).arrow().to_pylist() == [{"n": 24}]
    trial.execute("CREATE OR REPLACE TABLE reviews AS SELECT 'other' AS review")
    assert trial.execute("SELECT * FROM reviews").row_count == 1
    assert production.execute("SELECT * FROM reviews").row_count == 24
    assert traces(production) == before
    assert fingerprint(production.workspace.root) == files


def test_a_model_built_here_answers_here_alone(production: Session, trial: Session) -> None:
    with pytest.raises(NameExists):
        trial.execute(BUILD.format(epochs=2).replace(", overwrite=True", ""))
    files = fingerprint(production.workspace.root)
    built = trial.execute(BUILD.format(epochs=2))
    assert built.assets == ["training_sets/m", "models/m"]
    registry = trial._runtime.registry
    ours, theirs = registry.resolve("m"), production._runtime.registry.resolve("m")
    assert ours is not None
    assert theirs is not None
    assert ours.path.is_relative_to(trial.workspace.root)
    assert [one.version for one in production._runtime.registry.versions("m")] == [theirs.version]
    assert "epochs=2" in (trial.catalog.model("m") or pytest.fail("no entry")).text
    assert "epochs=1" in (production.catalog.model("m") or pytest.fail("no entry")).text
    assert not list(trial.workspace.snapshots.glob("*.parquet")), "the rows are production's snapshot"
    assert fingerprint(production.workspace.root) == files


def test_what_is_borrowed_cannot_be_taken_away(production: Session, trial: Session) -> None:
    before, ours = traces(production), traces(trial)
    for statement in ("DROP TABLE reviews", "DELETE MODEL m", "DROP TABLE p"):
        with pytest.raises(BorrowedAsset, match="production's"):
            trial.execute(statement)
    assert traces(production) == before
    assert traces(trial) == ours
    trial.execute("CREATE OR REPLACE TABLE p AS SELECT 1 AS x")
    trial.execute("DROP TABLE p")
    assert trial.execute("SELECT * FROM p").row_count == 24


def test_production_never_sees_what_was_made_here(production: Session, trial: Session) -> None:
    trial.execute("CREATE TABLE mine AS SELECT * FROM reviews")
    assert "mine" not in [table.name for table in production._runtime.warehouse.tables()]
    assert production.catalog.relation("mine") is None
    key = dg.AssetKey(["tables", "mine"])
    assert not production._open_runner().instance.get_asset_records([key])


def test_the_variable_opens_the_environment_for_the_code_location(
    trial: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.definitions import defs

    trial.execute("CREATE TABLE mine AS SELECT * FROM reviews")
    monkeypatch.setenv("THANO_WORKSPACE", str(trial.workspace.production.root))  # type: ignore[union-attr]
    monkeypatch.setenv("THANO_ENV", "trial")
    definitions = defs()
    names = {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}
    assert {"tables/mine", "tables/reviews", "models/m", "predictions/p"} <= names
    with Session() as session:
        assert session.workspace == trial.workspace


# -- what plans know of production ---------------------------------------------------------------------


def test_productions_records_count_where_the_environment_made_nothing(
    production: Session, trial: Session
) -> None:
    environment = trial.workspace
    assert isinstance(environment, Environment)
    keys = [REVIEWS, ROWS, MODEL, ANSWERS, ("tables", "nothing")]
    theirs = production._open_runner().records(keys)
    lent = borrowed_records(environment, keys)
    assert set(lent) == {REVIEWS, ROWS, MODEL, ANSWERS}
    assert all(record.borrowed for record in lent.values())
    assert {key: record.data_version for key, record in lent.items()} == {
        key: record.data_version for key, record in theirs.items()
    }
    assert borrowed_records(production.workspace, keys) == {}
    trial.execute("CREATE OR REPLACE TABLE reviews AS SELECT 'other' AS review")
    own = read_records(trial._open_runner().instance, keys)
    both = with_borrowed(environment, own, keys)
    assert set(both) == set(lent)
    assert [key for key, record in both.items() if not is_borrowed(record)] == [REVIEWS]


def test_dagster_here_is_told_of_what_is_borrowed_once(production: Session, trial: Session) -> None:
    instance = trial._open_runner().instance
    for _ in range(2):
        note_borrowed(trial.workspace, instance, [MODEL, ("tables", "nothing")])
    events = instance.fetch_materializations(dg.AssetKey(list(MODEL)), limit=10).records
    assert len(events) == 1
    told = read_records(instance, [("raw", "reviews"), REVIEWS, ROWS, MODEL, ANSWERS])
    assert set(told) == {("raw", "reviews"), REVIEWS, ROWS, MODEL}, "what it stands on, nothing else"
    noted = read_records(instance, [MODEL])[MODEL]
    theirs = production._open_runner().records([MODEL])[MODEL]
    assert (noted.data_version, noted.code_version) == (theirs.data_version, theirs.code_version)
    assert is_borrowed(noted)
    production.execute(BUILD.format(epochs=2))
    again = with_borrowed(trial.workspace, {MODEL: noted}, [MODEL])[MODEL]
    assert again.data_version == production._open_runner().records([MODEL])[MODEL].data_version
    note_borrowed(trial.workspace, instance, [MODEL])
    assert read_records(instance, [MODEL])[MODEL].data_version == again.data_version


def test_what_production_made_from_the_same_is_not_made_again(trial: Session) -> None:
    plan = planned(trial, FILE)
    assert {action for action, _ in plan.values()} == {"skip"}
    assert plan["models/m"][1] == plan["predictions/p"][1] == "unchanged, borrowed from production"
    assert run(trial, FILE) == []
    assert own_tables(trial) == []


def test_a_changed_option_makes_the_model_and_its_predictions_here(
    production: Session, trial: Session
) -> None:
    changed = FILE.replace("epochs=1", "epochs=2")
    plan = planned(trial, changed)
    assert plan["tables/reviews"] == ("skip", "unchanged, borrowed from production")
    assert "changed from 1 to 2" in plan["models/m"][1]
    made = run(trial, changed)
    assert "models/m" in made
    assert "predictions/p" in made
    assert "tables/reviews" not in made
    assert own_tables(trial) == ["p"]
    assert run(trial, changed) == [], "Dagster kept the versions of what was borrowed"
    assert run(production, FILE) == []
