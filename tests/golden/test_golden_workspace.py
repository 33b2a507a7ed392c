"""A workspace that an earlier version made opens, is up to date, predicts and rolls back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.session.conftest import Recorder
from thano_assets.session import Session

from .workspace import SCRIPT, unpack


@pytest.fixture
def told() -> Recorder:
    return Recorder()


@pytest.fixture
def old(tmp_path: Path, told: Recorder) -> Session:
    return Session(unpack(tmp_path), progress=told)


def test_nothing_is_to_be_made(old: Session, told: Recorder) -> None:
    plan = old.plan(SCRIPT)
    assert plan.summary == "nothing to do, 1 expectation to check"
    steps = old.script(old.parse(SCRIPT))
    assert [step.runs for step in steps if step.statement.kind != "EXPECT"] == [False] * 7
    made, result = old.bring_up_to_date()
    assert (made, result) == ([], None)
    assert told.warnings == []


def test_a_changed_row_is_what_is_made_anew(old: Session) -> None:
    with (old.workspace.data / "reviews.jsonl").open("a") as file:
        file.write('{"review": "x a ababab", "stars": 5}\n')
    rows = old.plan(SCRIPT).arrow().to_pylist()
    changed = {row["asset"] for row in rows if row["action"] not in ("skip", "check")}
    assert changed == {
        "raw/reviews",
        "tables/reviews",
        "tables/best",
        "training_sets/분류",
        "models/분류",
        "predictions/answers",
        "evaluations/scores",
        "explanations/the words",
        "predictions/predict_분류_best_196047",
    }


def test_what_is_made_anew_has_the_data_version_that_it_had(old: Session) -> None:
    def versions() -> dict[str, str]:
        rows = old.execute('SHOW LINEAGE "the words"').arrow().to_pylist()
        return {
            row["asset"]: row["data_version"] for row in rows if row["kind"] not in ("models", "explanations")
        }

    before = versions()
    assert before.keys() == {"raw/reviews", "tables/reviews", "tables/best", "training_sets/분류"}
    steps = old.script(old.parse(SCRIPT), force=True)
    for step in steps[:2]:
        old.execute_step(step)
    assert versions() == before


def test_it_predicts_and_rolls_back(old: Session) -> None:
    before = old.execute("SELECT predicted FROM answers ORDER BY ALL").arrow()
    again = old.execute("CREATE TABLE answers2 AS PREDICT USING 분류 AS SELECT review FROM reviews")
    assert again.row_count == 40
    assert old.execute("SELECT predicted FROM answers2 ORDER BY ALL").arrow() == before
    old.execute("PROMOTE MODEL 분류 VERSION 1")
    rows = old.execute("SHOW VERSIONS OF MODEL 분류").arrow().to_pylist()
    assert [(row["version"], row["aliases"]) for row in rows] == [(2, []), (1, ["champion"])]
    assert old.execute("SELECT DISTINCT predicted FROM answers").row_count > 0


def test_training_goes_on_from_it(old: Session) -> None:
    old.execute(
        "FIT MODEL more USING 분류 OPTIONS (text_col='review', label_col='stars', epochs=1) AS SELECT * FROM reviews"
    )
    assert "models/분류" in old.execute("SHOW LINEAGE more").arrow().column("asset").to_pylist()
