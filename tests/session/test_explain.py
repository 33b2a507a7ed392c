"""EXPLAIN PREDICT: which words moved each prediction, kept as a table like a prediction."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from thano_assets.assets.predictions import explanations
from thano_assets.errors import InvalidOption, UnknownColumn
from thano_assets.session import Session

from .conftest import Recorder

ROWS = "(VALUES (1, 'a bb c'), (2, NULL), (3, 'c d e'), (4, 'a bb c'), (5, ' ')) t(id, text)"


@pytest.fixture
def model(session: Session, make_classifier: Callable[..., Path]) -> Session:
    """A session with the model m, whose random weights are wide enough for words to matter, and a table."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(make_classifier(("no", "yes")), session.workspace.data / "mine"))
    weights = load_file(folder / "model.safetensors")
    wide = {name: value * 30 if value.ndim == 2 else value for name, value in weights.items()}
    save_file(wide, folder / "model.safetensors", metadata={"format": "pt"})
    session.execute("UPLOAD MODEL m FROM 'mine'")
    session.execute(
        "CREATE TABLE train AS SELECT chr((97 + i % 20)::INTEGER) || ' b' AS text FROM range(20) r(i)"
    )
    return session


def test_the_rows_come_back_in_order_with_predictions_and_words(model: Session) -> None:
    result = model.execute(f"EXPLAIN PREDICT USING m OPTIONS (top_k=2) AS SELECT * FROM {ROWS}")
    assert result.kept_as is not None
    assert result.kept_as.startswith("explain_predict_m_")
    assert result.table is not None
    rows = result.table.to_pylist()
    assert list(rows[0]) == ["id", "text", "predicted", "probability", "probabilities", "explanation"]
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["explanation"] is None for row in rows] == [False, True, False, False, True]
    assert rows[0]["explanation"] == rows[3]["explanation"]
    for row in (rows[0], rows[2]):
        words = row["explanation"]
        assert 1 <= len(words) <= 2
        assert {word["token"] for word in words} <= set(row["text"].split())
        assert [abs(word["weight"]) for word in words] == sorted(
            (abs(word["weight"]) for word in words), reverse=True
        )
    predicted = model.execute(f"PREDICT USING m AS SELECT * FROM {ROWS}").table
    assert predicted is not None
    assert [row["predicted"] for row in rows] == predicted.column("predicted").to_pylist()
    assert result.summary.startswith("3 rows explained by m version 1, ")


def test_an_explanation_is_a_named_table_and_stands_in_a_query(model: Session) -> None:
    model.execute(
        "CREATE TABLE why AS EXPLAIN PREDICT USING m OPTIONS (proba=False, result_col='said') AS SELECT * FROM train"
    )
    frame = model.execute(
        "SELECT word.token AS token, sum(word.weight) AS weight FROM (SELECT unnest(explanation) AS word FROM why) GROUP BY ALL"
    ).df()
    assert len(frame) > 3
    nested = "SELECT count(*) AS n FROM (EXPLAIN PREDICT USING m AS SELECT * FROM train LIMIT 2) WHERE len(explanation) > 0"
    assert model.execute(nested).df()["n"].tolist() == [2]
    lineage = model.execute("SHOW LINEAGE why").df()
    assert "explanations" in lineage["kind"].tolist()
    plan = model.plan(
        "CREATE OR REPLACE TABLE why AS EXPLAIN PREDICT USING m OPTIONS (top_k=3) AS SELECT * FROM train"
    ).df()
    assert plan["reason"].tolist()[-1].endswith("top_k changed from 10 to 3")
    same = "CREATE OR REPLACE TABLE why AS EXPLAIN PREDICT USING m OPTIONS (result_col='said', proba=False) AS select * from train"
    assert [step.runs for step in model.script(model.parse(same))] == [False]


def test_the_same_statement_gives_the_same_words(model: Session) -> None:
    text = f"EXPLAIN PREDICT USING m AS SELECT * FROM {ROWS}"
    first = model.execute(text).df()["explanation"].map(str).tolist()
    assert model.execute(text).df()["explanation"].map(str).tolist() == first


def test_the_asset_shows_a_sample_and_how_fast_it_was(model: Session) -> None:
    model.execute(f"CREATE TABLE why AS EXPLAIN PREDICT USING m AS SELECT * FROM {ROWS}")
    import dagster as dg

    instance = model._open_runner().instance
    event = instance.get_latest_materialization_event(dg.AssetKey(["explanations", "why"]))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert "| a bb c |" in str(metadata["sample"].value)
    assert metadata["texts explained"].value == 2
    assert float(metadata["texts explained per second"].value) > 0
    assert metadata["explanations that add up"].value == "2 of 2"


def test_many_rows_are_warned_of(model: Session, told: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanations, "MANY", 1)
    result = model.execute(f"EXPLAIN PREDICT USING m AS SELECT * FROM {ROWS}")
    assert any(text.startswith("2 texts are explained") for text in result.warnings)


def test_what_does_not_fit_the_query_is_said_before_a_run(model: Session) -> None:
    with pytest.raises(UnknownColumn, match="text_col='words'"):
        model.execute(f"EXPLAIN PREDICT USING m OPTIONS (text_col='words') AS SELECT * FROM {ROWS}")
    with pytest.raises(InvalidOption, match="already has a column explanation"):
        model.execute("EXPLAIN PREDICT USING m AS SELECT 'a' AS text, 1 AS explanation")
    with pytest.raises(InvalidOption, match="top_k"):
        model.execute("EXPLAIN PREDICT USING m OPTIONS (top_k=0) AS SELECT 'a' AS text")


def test_explaining_no_rows_gives_no_rows(model: Session) -> None:
    result = model.execute(f"EXPLAIN PREDICT USING m AS SELECT * FROM {ROWS} WHERE id > 9")
    assert result.row_count == 0
    assert "explanation" in result.df().columns
