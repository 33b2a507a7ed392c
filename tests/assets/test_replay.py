"""A version trained again from what is kept of it comes out equal, or the report says what differs."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest

from tests.session.conftest import traces, write_rows
from thano_assets.errors import ThanoError
from thano_assets.session import Session

OPTIONS = "text_col='review', label_col='sentiment', epochs=2, batch_size=8, learning_rate=0.1, seed=3, baseline=True"


@pytest.fixture
def model(session: Session) -> Session:
    """The model ``m``, whose table has changed since."""
    rows: list[dict[str, object]] = []
    for n in range(30):
        number = " ".join("cdefghijkl"[int(digit)] for digit in f"{n:02d}")
        rows.append({"review": f"x x x x {number}", "sentiment": "positive"})
        rows.append({"review": f"y y y y {number}", "sentiment": "negative"})
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute(
        "COPY reviews FROM 'reviews.jsonl';"
        f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews;"
        "CREATE OR REPLACE TABLE reviews AS SELECT 'z' AS review, 'positive' AS sentiment"
    )
    return session


def report(session: Session, text: str) -> dict[str, dict[str, Any]]:
    result = session.execute(text)
    assert result.table is not None
    assert result.table.column_names == ["what", "then", "now", "equal"]
    return {row["what"]: row for row in result.table.to_pylist()}


def test_on_the_same_machine_everything_is_equal_and_the_report_is_kept(model: Session) -> None:
    before = traces(model)
    result = model.execute("REBUILD MODEL m VERIFY")
    assert result.table is not None
    rows = {row["what"]: row for row in result.table.to_pylist()}
    assert {what for what, row in rows.items() if row["equal"] is not True} == set()
    assert {
        "training rows", "accuracy", "f1_macro", "loss", "train_loss", "baseline_accuracy", "weights",
        "predictions", "base model", "device", "precision", "torch", "transformers",
    } <= set(rows)  # fmt: skip
    assert traces(model) == before, "nothing is registered"
    assert result.summary.startswith("m version 1 came out equal: accuracy, ")
    client = model._runtime.registry.client
    assert result.mlflow_run_id is not None
    run = client.get_run(result.mlflow_run_id)
    assert run.data.tags["thano.verification"] == "m VERSION 1"
    assert run.data.tags["thano.verification_equal"] == "True"
    assert run.info.status == "FINISHED"
    training = model._runtime.registry.newest_training("m")
    assert training is not None
    assert training.run_id != result.mlflow_run_id, "a verification is not the model's training"
    instance = model._open_runner().instance
    (record,) = instance.fetch_observations(dg.AssetKey(["models", "m"]), limit=5).records
    metadata = record.asset_observation.metadata  # type: ignore[union-attr]
    assert metadata["equal"].value is True
    assert "| weights | " in str(metadata["report"].value)


def test_it_says_what_differs(model: Session) -> None:
    """As after an upgrade: another library, other digits."""
    registry = model._runtime.registry
    version = registry.champion("m")
    assert version is not None
    libraries = version.tags["thano.libraries"].split(", ")
    registry.tag(
        version,
        {
            "thano.data_version": "f" * 32,
            "thano.libraries": ", ".join(["torch 1.0.0", *libraries[1:]]),
            "thano.metrics": json.dumps({**version.metrics, "loss": 0.123}),
        },
    )
    result = model.execute("REBUILD MODEL m VERSION 1 VERIFY")
    assert result.table is not None
    rows = {row["what"]: row for row in result.table.to_pylist()}
    assert {what for what, row in rows.items() if not row["equal"]} == {"weights", "loss", "torch"}
    assert rows["loss"]["then"] == "0.123"
    assert result.summary.startswith("m version 1 came out different: loss, weights (torch was 1.0.0, is ")
    assert result.warnings == [f"{result.summary}."]


def test_a_child_is_replayed_from_its_parent(model: Session) -> None:
    rows = "SELECT 'x x q' AS review, 'positive' AS sentiment UNION ALL SELECT 'y y q', 'negative'"
    options = "text_col='review', label_col='sentiment', epochs=1, eval_fraction=0, overwrite=True"
    model.execute(f"FIT MODEL m USING m OPTIONS ({options}) AS {rows}")
    model.execute(f"FIT MODEL m USING m OPTIONS ({options}) AS {rows}")
    rows_ = report(model, "REBUILD MODEL m VERSION 2 VERIFY")
    assert rows_["parent"]["now"] == "m VERSION 1", "its own parent, not the champion of today"
    assert all(row["equal"] for row in rows_.values())
    assert "predictions" in rows_, "of the first training rows, where none are held out"


def test_without_verify_a_version_is_registered(model: Session) -> None:
    model.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, overwrite=True) AS "
                  "SELECT 'x' || range AS review, range % 2 AS sentiment FROM range(20)")  # fmt: skip
    result = model.execute("REBUILD MODEL m VERSION 1")
    assert result.table is not None
    (row,) = result.table.to_pylist()
    assert (row["version"], row["status"], result.assets) == (3, "registered", ["models/m"])
    first, second, third = model._runtime.registry.versions("m")
    assert third.data_version == first.data_version != second.data_version
    assert third.aliases == ("champion",)
    assert third.tags["thano.statement"] == first.tags["thano.statement"]
    runner = model._open_runner()
    record = runner.records([("models", "m")])["models", "m"]
    assert record.data_version == third.data_version
    assert record.inputs["training_sets", "m"] == first.tags["thano.training_set_identity"]
    assert result.run_id is not None
    assert runner.instance.get_run_by_id(result.run_id) is not None


def test_what_cannot_be_replayed_is_one_sentence(model: Session) -> None:
    model.execute("GET THANOSQL MODEL electra")
    before = traces(model)

    def refused(text: str, code: str, sentence: str) -> None:
        with pytest.raises(ThanoError) as caught:
            model.execute(text)
        assert caught.value.code == code
        assert sentence in caught.value.message
        assert (caught.value.line, caught.value.column) == (1, 15)
        assert traces(model) == before

    refused("REBUILD MODEL n VERIFY", "unknown-model", "There is no model n in the registry.")
    refused("REBUILD MODEL m VERSION 7 VERIFY", "unknown-model", "Model m has no version 7.")
    refused("REBUILD MODEL tutorial_text_classification", "unsupported-statement", "was not trained here")
    for snapshot in model.workspace.snapshots.glob("*.parquet"):
        snapshot.unlink()
    refused("REBUILD MODEL m VERIFY", "workspace", "are no longer kept (snapshots/")
    refused("REBUILD MODEL m", "workspace", "are no longer kept (snapshots/")
