"""Rows that a model was trained on are no measure of it: they are counted, and told."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.session.conftest import traces, write_rows
from thano_assets.assets.models.features import TextReading
from thano_assets.assets.models.leakage import Memory, rows_seen
from thano_assets.errors import TrainingDataError
from thano_assets.session import Session

OPTIONS = "text_col='review', label_col='sentiment', epochs=1, batch_size=20, baseline=False"
EVALUATE = "EVALUATE USING {model} OPTIONS (text_col='review', label_col='sentiment'{more}) AS {query}"


@pytest.fixture
def reviews(session: Session) -> Session:
    """100 rows, of which the model ``m`` was trained on 72 of the first 80 and held out 8."""
    rows: list[dict[str, object]] = []
    for n in range(50):
        for mark, label in (("x", "positive"), ("y", "negative")):
            rows.append({"review": f"{mark} text {n}", "sentiment": label, "new": n >= 40, "n": n})
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute(
        f"COPY reviews FROM 'reviews.jsonl'; BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) "
        "AS SELECT * FROM reviews WHERE NOT new"
    )
    return session


def seen(session: Session, model: str, query: str) -> tuple[int, int, list[str]]:
    """Rows of the query, those that the champion has seen, and versions that cannot tell."""
    version = session._runtime.registry.champion(model)
    assert version is not None
    memory = Memory.of(version, session._runtime)
    with session._runtime.warehouse.read() as connection:
        leak = rows_seen(connection, f"({query})", TextReading("review"), memory)
    return leak.rows, leak.seen, leak.unknown


def test_rows_that_were_trained_on_are_counted_and_those_held_out_are_not(reviews: Session) -> None:
    assert seen(reviews, "m", "FROM reviews") == (100, 72, [])
    assert seen(reviews, "m", "FROM reviews WHERE new") == (20, 0, [])
    # The very rows: those that the trainer says it held out, told apart from what is kept.
    version = reviews._runtime.registry.champion("m")
    assert version is not None
    (trained,) = Memory.of(version, reviews._runtime).trainings
    assert trained.held_out is not None
    texts = pq.read_table(trained.path).column("text").take(trained.held_out).to_pylist()
    listed = ", ".join(f"'{text}'" for text in texts)
    assert seen(reviews, "m", f"FROM reviews WHERE review IN ({listed})") == (8, 0, [])
    assert int(version.tags["thano.rows_eval"]) == 8
    # Rows count by their text, and blank ones not at all.
    assert seen(reviews, "m", "SELECT review FROM reviews UNION ALL SELECT review FROM reviews")[:2] == (
        200,
        144,
    )
    assert seen(reviews, "m", "SELECT unnest([NULL, '', '  ', 'other']) AS review") == (1, 0, [])

    # EVALUATE says how many.
    result = reviews.execute(EVALUATE.format(model="m", more="", query="SELECT * FROM reviews"))
    assert result.warnings == [
        "72 of the 100 rows were among those that m VERSION 1 was trained on: "
        "its scores look better than they are."
    ]
    clean = reviews.execute(EVALUATE.format(model="m", more="", query="SELECT * FROM reviews WHERE new"))
    assert clean.warnings == []


def test_a_child_has_seen_what_its_parents_saw(reviews: Session) -> None:
    new = "SELECT * FROM reviews WHERE new"
    reviews.execute(f"FIT MODEL c USING m OPTIONS ({OPTIONS}) AS {new}")
    assert seen(reviews, "c", "FROM reviews") == (100, 90, [])
    reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, overwrite=True) AS {new}")
    reviews.execute("DELETE MODEL m VERSION 1")
    assert seen(reviews, "c", "FROM reviews") == (100, 18, ["m VERSION 1"])
    result = reviews.execute(EVALUATE.format(model="c", more="", query="SELECT * FROM reviews WHERE n < 10"))
    assert "Whether m VERSION 1 was trained on some of the rows cannot be checked" in result.summary


def test_strict_refuses_before_a_text_is_read(reviews: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from thano_assets.learning.predict import Predictor

    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Predictor, "cached", never)
    before = traces(reviews)
    text = EVALUATE.format(model="m", more=", strict=True", query="SELECT * FROM reviews")
    with pytest.raises(TrainingDataError, match="72 of the query's 100 rows are among those that") as caught:
        reviews.execute(text)
    assert text[(caught.value.column or 0) - 1 :].startswith("strict=True")
    assert traces(reviews) == before
    monkeypatch.undo()
    text = EVALUATE.format(model="m", more=", strict=True", query="SELECT * FROM reviews WHERE new")
    assert reviews.execute(text).row_count


def test_a_version_without_its_rows_says_that_it_cannot_be_checked(reviews: Session) -> None:
    for snapshot in Path(reviews.workspace.snapshots).glob("*.parquet"):
        snapshot.unlink()
    assert seen(reviews, "m", "FROM reviews") == (100, 0, ["m VERSION 1"])
    more = ", strict=True"
    result = reviews.execute(EVALUATE.format(model="m", more=more, query="SELECT * FROM reviews WHERE new"))
    assert "cannot be checked: its rows are not kept here." in result.summary
