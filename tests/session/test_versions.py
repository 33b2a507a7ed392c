"""Statements about a model's versions, through the one door."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.session.conftest import traces, write_rows
from thano_assets.errors import ThanoError
from thano_assets.resources import mlflow_reader
from thano_assets.session import Session

OPTIONS = "text_col='review', label_col='sentiment', batch_size=8, baseline=False"


@pytest.fixture
def model(session: Session) -> Session:
    """The model ``m`` with two versions, the second of which answers, and a table that it predicted."""
    rows: list[dict[str, object]] = [
        {"review": f"{mark} {n}", "sentiment": label}
        for n in range(20)
        for mark, label in (("x x", "positive"), ("y y", "negative"))
    ]
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute("COPY reviews FROM 'reviews.jsonl'")
    for epochs in (1, 2):
        session.execute(
            f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, epochs={epochs}, overwrite=True) "
            "AS SELECT * FROM reviews"
        )
    session.execute("CREATE TABLE p AS PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews")
    return session


def rows(session: Session, text: str) -> list[dict[str, Any]]:
    table = session.execute(text).table
    assert table is not None
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_versions_are_listed_newest_first_and_the_curve_of_the_newest(
    model: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, first = rows(model, "SHOW VERSIONS OF MODEL m")
    assert (second["version"], second["aliases"], second["status"]) == (2, ["champion"], "champion")
    assert (first["version"], first["aliases"], first["status"]) == (1, [], "registered")
    assert (first["rows_train"], first["rows_eval"]) == (36, 4)
    assert 0 <= first["accuracy"] <= 1
    assert first["loss"] > 0
    assert "epochs=1" in first["statement"]
    assert second["created"] >= first["created"]
    run = model._runtime.registry.client.get_run(first["run_id"])
    assert run.data.params["epochs"] == "1"

    # The loss curve of the newest one.
    curve = rows(model, "SHOW TRAINING OF MODEL m")
    assert [row["step"] for row in curve] == sorted({row["step"] for row in curve})
    assert curve[-1]["epoch"] == 2.0
    assert all(row["loss"] is not None for row in curve)
    ends = [row for row in curve if row["eval_loss"] is not None]
    assert [row["epoch"] for row in ends] == [1.0, 2.0]
    assert {row["status"] for row in curve} == {"finished"}
    assert curve[-1]["seconds"] > 0
    assert {row["run_id"] for row in curve} == {second["run_id"]}

    for verb in ("PROMOTE", "DELETE", "REBUILD"):
        with pytest.raises(ThanoError, match=r"Model m has no version 9. Its versions are: 1, 2.") as caught:
            model.execute(f"{verb} MODEL m VERSION 9")
        assert caught.value.code == "unknown-model"

    # The same through MLflow itself.
    registry = model._runtime.registry
    fast = registry.newest_training("m")

    def unknown(*_: Any) -> None:
        raise mlflow_reader.UnknownSchema("no such table: runs")

    monkeypatch.setattr(mlflow_reader, "read", unknown)
    assert registry.newest_training("m") == fast


def test_promotion_by_hand_marks_what_the_former_champion_predicted(model: Session) -> None:
    result = model.execute("PROMOTE MODEL m VERSION 1")
    assert result.summary == "m version 1 answers now, version 2 did before"
    assert result.warnings == ["predictions/p read it and are out of date now; thano run makes them again."]
    second, first = rows(model, "SHOW VERSIONS OF MODEL m")
    assert (first["status"], second["status"]) == ("champion", "registered")
    assert first["why"] == "by hand: PROMOTE MODEL m VERSION 1 (before: version 2)"
    records = model._open_runner().records([("models", "m"), ("predictions", "p")])
    assert records["models", "m"].data_version == first["data_version"]
    assert records["models", "m"].code_version is not None, "the statement is what it was"
    assert records["models", "m"].details["answers"] == first["data_version"]
    assert records["predictions", "p"].inputs["models", "m"] == second["data_version"]
    again = model.execute("PROMOTE MODEL m VERSION 1")
    assert (again.summary, again.warnings) == ("m version 1 answers already", [])
    assert rows(model, "SHOW VERSIONS OF MODEL m")[1]["why"] == first["why"]
    predicted = model.execute("PREDICT USING m OPTIONS (text_col='review') AS SELECT 'x' AS review")
    assert "by m version 1" in predicted.summary
    # A promotion that was killed before it told Dagster is finished by another one.
    model._runtime.registry.promote("m", 2)
    model.execute("PROMOTE MODEL m VERSION 2")
    assert (
        model._open_runner().records([("models", "m")])["models", "m"].data_version == second["data_version"]
    )


def test_delete_removes_one_version_and_never_the_champion(model: Session) -> None:
    before = traces(model)
    text = "DELETE MODEL m VERSION 2"
    with pytest.raises(ThanoError) as caught:
        model.execute(text)
    assert (caught.value.code, caught.value.column) == ("champion", 14)
    assert str(caught.value) == (
        "m VERSION 2 is the champion, which answers. "
        "PROMOTE MODEL m VERSION 1 first, or another of its versions."
    )
    assert traces(model) == before
    registry = model._runtime.registry
    folder, run_id = registry.versions("m")[0].path, registry.versions("m")[0].run_id
    model.execute("CREATE TABLE p1 AS PREDICT USING m VERSION 1 OPTIONS (text_col='review') AS FROM reviews")
    model.execute(f"FIT MODEL c USING m VERSION 1 OPTIONS ({OPTIONS}, epochs=1) AS SELECT * FROM reviews")
    result = model.execute("DELETE MODEL m VERSION 1")
    assert result.summary == "m version 1 deleted"
    assert sorted(result.warnings) == [
        "c VERSION 1 went on from it and cannot be replayed without it.",
        "models/c, predictions/p1 name this version and cannot be made again without it.",
    ]
    assert [version.version for version in registry.versions("m")] == [2]
    assert not folder.exists()
    assert registry.client.get_run(run_id).info.status == "FINISHED"
    with pytest.raises(ThanoError, match="It is the only version: DELETE MODEL m removes the model"):
        model.execute("DELETE MODEL m VERSION 2")
    assert model.execute("PREDICT USING m OPTIONS (text_col='review') AS SELECT 'x' AS review").row_count == 1


def test_unknown_models_are_placed(session: Session) -> None:
    for text, column in (
        ("SHOW VERSIONS OF MODEL n", 24),
        ("SHOW TRAINING OF MODEL n", 24),
        ("PROMOTE MODEL n VERSION 1", 15),
        ("DELETE MODEL n VERSION 1", 14),
        ("REBUILD MODEL n", 15),
        ("REBUILD MODEL n VERSION 2 VERIFY", 15),
    ):
        with pytest.raises(ThanoError, match=r"There is no model n in the registry\.") as caught:
            session.execute(text)
        assert caught.value.code == "unknown-model"
        assert (caught.value.line, caught.value.column) == (1, column)


def test_the_curve_of_a_training_that_goes_on(session: Session) -> None:
    registry = session._runtime.registry
    with registry.build("m") as build:
        build.log_metrics({"epoch": 0.5, "loss": 0.7}, 10)
        build.log_metrics({"epoch": 1.0, "loss": float("nan")}, 20)
        build._flush()
        code = (
            "import sys\nfrom thano_assets.session import Session\n"
            "table = Session(sys.argv[1]).execute('SHOW TRAINING OF MODEL m').table\n"
            "print(table.select(['step', 'loss', 'status']).to_pylist())\n"
            "assert not {'mlflow', 'torch', 'transformers'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(session.workspace.root)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "{'step': 10, 'loss': 0.7, 'status': 'running'}" in done.stdout
        (_, last) = rows(session, "SHOW TRAINING OF MODEL m")
        assert (last["step"], last["epoch"], last["loss"]) == (20, 1.0, None)
    assert {row["status"] for row in rows(session, "SHOW TRAINING OF MODEL m")} == {"finished"}


def test_a_build_and_a_delete_at_once_leave_a_whole_model_or_none(model: Session) -> None:
    """Whoever comes second finds what the first left; the registry never points at files that are gone."""
    errors: list[BaseException] = []

    def build() -> None:
        with Session(model.workspace) as other:
            try:
                other.execute(
                    f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, epochs=1, seed=5, overwrite=True, "
                    "promote_if='accuracy >= 0') AS SELECT * FROM reviews"
                )
            except ThanoError as error:
                errors.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    model.execute("DELETE MODEL m")
    thread.join(120)
    assert not thread.is_alive()
    for version in model._runtime.registry.versions("m"):
        assert (version.path / "model.safetensors").is_file()
    assert [type(error).__name__ for error in errors] in ([], ["UnknownModel"])
