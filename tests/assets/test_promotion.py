"""A new version answers only after it was held against the one that answers now."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pytest

from tests.orchestration.conftest import run_as_daemon
from tests.session.conftest import Recorder, traces, write_rows
from thano_assets.assets.models import models, promotion
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import ThanoError
from thano_assets.graph import Graph
from thano_assets.resources.registry import ModelVersion, Registry
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

GOOD = "text_col='review', label_col='sentiment', epochs=15, batch_size=8, baseline=False, learning_rate=0.01"
# One step over all rows at a rate that moves nothing.
BAD = "text_col='review', label_col='sentiment', epochs=1, batch_size=500, baseline=False, learning_rate=1e-9"
ROWS = "SELECT review, sentiment FROM reviews"


@pytest.fixture
def reviews(session: Session) -> Session:
    """Rows to train on, and others to judge by, with letters that tell the labels apart."""
    rows: list[dict[str, object]] = []
    for n in range(60):
        number = " ".join("cdefghijkl"[int(digit)] for digit in f"{n:02d}")
        rows.append({"review": f"x x x x {number}", "sentiment": "positive", "part": n % 3})
        rows.append({"review": f"y y y y {number}", "sentiment": "negative", "part": n % 3})
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute(
        "COPY everything FROM 'reviews.jsonl';"
        "CREATE TABLE reviews AS SELECT * FROM everything WHERE part > 0;"
        "CREATE TABLE judges AS SELECT review, sentiment FROM everything WHERE part = 0"
    )
    return session


@pytest.fixture
def make(reviews: Session) -> Callable[..., Outcome]:
    """Materializes a model as a step of a run would, and gives back its outcome."""

    def run(options: str, *, incremental: bool = False, query: str = ROWS) -> Outcome:
        from thano_assets.assets.models import training_sets
        from thano_assets.catalog import entry_of
        from thano_assets.sql import parse

        (statement,) = parse(f"BUILD MODEL m USING ElectraEn OPTIONS ({options}) AS {query}")
        entry = entry_of(statement)
        assert entry is not None
        graph = Graph([*reviews.catalog.entries(), entry])
        runtime = replace(reviews._runtime, incremental=incremental)
        training_sets.materialize(graph.nodes["training_sets", "m"], runtime)
        return models.materialize(graph.nodes["models", "m"], runtime)

    return run


def registry(session: Session) -> Registry:
    return session._runtime.registry


def champion(session: Session) -> int | None:
    found = registry(session).champion("m")
    return None if found is None else found.version


def status(outcome: Outcome) -> tuple[int, str]:
    assert outcome.result is not None
    (row,) = outcome.result.to_pylist()
    return row["version"], row["status"]


def test_without_either_option_the_newest_answers(reviews: Session, make: Callable[..., Outcome]) -> None:
    assert status(make(GOOD)) == (1, "registered")
    outcome = make(BAD)
    assert (status(outcome), outcome.checks, champion(reviews)) == ((2, "registered"), [], 2)


def test_a_worse_challenger_is_registered_and_does_not_answer(
    reviews: Session, make: Callable[..., Outcome], told: Recorder
) -> None:
    first = make(f"{GOOD}, evaluate_on='judges'")
    assert status(first) == (1, "promoted")
    (check,) = first.checks
    assert check.passed
    assert check.description == "Version 1 is promoted: there was no champion to hold it against."

    outcome = make(f"{BAD}, evaluate_on='judges'")
    assert status(outcome) == (2, "not promoted")
    assert champion(reviews) == 1
    assert outcome.data_version == first.data_version, "nothing downstream is out of date"
    (check,) = outcome.checks
    assert (check.name, check.passed) == ("promotion", False)
    assert check.facts["condition"] == "f1_macro >= champion"
    assert (check.facts["rows"], check.facts["rows from"]) == (40, "judges")
    assert (check.facts["new version"], check.facts["champion"]) == (2, 1)
    assert check.facts["f1_macro of the new version"] < check.facts["f1_macro of the champion"]
    assert check.facts["new version's rows seen in training"] == 0
    assert outcome.details["version"] == 2
    assert outcome.details["answers"] == first.data_version
    (warning,) = outcome.warnings
    assert warning.startswith("Version 2 is not promoted: f1_macro 0.")
    assert "is not >=" in warning
    assert warning.endswith("of version 1 on 40 rows of judges; version 1 still answers.")
    assert warning in told.warnings
    assert "Version 2 is not promoted" in outcome.summary
    # MLflow tells why, too.
    version = registry(reviews).versions("m")[-1]
    assert version.tags["thano.promotion"] == "not promoted"
    assert version.tags["thano.promotion_reason"] == outcome.checks[0].description
    run = registry(reviews).client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["thano.promotion"] == "not promoted"
    facts = outcome.checks[0].facts
    for name in ("accuracy", "f1_macro", "precision_macro", "recall_macro", "loss", "roc_auc"):
        ours, theirs = run.data.metrics[f"challenge/{name}"], run.data.metrics[f"challenge/champion_{name}"]
        assert round(ours, 6) == facts[f"{name} of the new version"]
        assert round(theirs, 6) == facts[f"{name} of the champion"]
    contexts = {(one.dataset.digest[:8], tag.value) for one in run.inputs.dataset_inputs for tag in one.tags}
    assert (facts["rows fingerprint"][:8], "evaluation") in contexts
    assert (version.tags["thano.training_set"][:8], "training") in contexts


def test_a_better_challenger_answers(reviews: Session, make: Callable[..., Outcome]) -> None:
    make(BAD)
    outcome = make(f"{GOOD}, evaluate_on='judges', promote_if='f1_macro > champion AND loss < champion'")
    assert (status(outcome), champion(reviews)) == ((2, "promoted"), 2)
    assert outcome.warnings == []
    assert "f1_macro" in outcome.checks[0].description
    assert "loss" in outcome.checks[0].description
    version = registry(reviews).champion("m")
    assert version is not None
    assert outcome.data_version == version.data_version
    assert version.tags["thano.promotion"] == "promoted"


def test_both_are_scored_on_the_rows_held_out_where_no_table_is_named(
    reviews: Session, make: Callable[..., Outcome]
) -> None:
    make(GOOD)
    outcome = make(f"{BAD}, seed=7, promote_if='f1_macro >= champion'")
    assert status(outcome) == (2, "not promoted")
    facts = outcome.checks[0].facts
    assert (facts["rows"], facts["rows from"]) == (8, "those held out")
    assert facts["new version's rows seen in training"] == 0
    seen = facts["champion's rows seen in training"]
    assert seen > 0, "the other seed held out other rows"
    assert any(f"{seen} of the 8 rows were among those that the champion" in one for one in outcome.warnings)


def test_a_first_version_below_a_number_leaves_the_model_without_an_answer(
    reviews: Session, make: Callable[..., Outcome]
) -> None:
    outcome = make(f"{BAD}, evaluate_on='judges', promote_if='accuracy >= 0.999'")
    assert status(outcome) == (1, "not promoted")
    assert (champion(reviews), outcome.data_version) == (None, promotion.NO_CHAMPION)
    assert outcome.warnings[0].endswith("no version answers.")


def test_an_incremental_run_judges_again_what_was_trained_before(
    reviews: Session, make: Callable[..., Outcome]
) -> None:
    options = f"{BAD}, evaluate_on='judges'"
    make(f"{GOOD}, evaluate_on='judges'")
    make(f"{options}, promote_if='accuracy > 0.999 AND loss < champion'")
    assert champion(reviews) == 1
    # The condition is no part of the training: the same version is judged by another one.
    outcome = make(f"{options}, promote_if='accuracy >= 0'", incremental=True)
    assert (status(outcome), champion(reviews)) == ((2, "promoted"), 2)
    assert "trained from the very same before" in outcome.summary
    assert len(registry(reviews).versions("m")) == 2
    # What was trained before answers again, without a gate too, whatever the query is called.
    outcome = make(GOOD, incremental=True, query="SELECT sentiment, review FROM reviews ORDER BY review DESC")
    assert (status(outcome), champion(reviews)) == ((1, "registered"), 1)
    outcome = make(GOOD)
    assert status(outcome) == (3, "registered"), "by hand it is trained"
    assert outcome.data_version == registry(reviews).versions("m")[0].data_version


def test_a_kill_before_the_alias_moves_leaves_the_old_champion_and_the_next_run_decides(
    reviews: Session, make: Callable[..., Outcome]
) -> None:
    make(BAD)
    options = f"{GOOD}, evaluate_on='judges', overwrite=True"
    code = (
        "import os, sys\nfrom thano_assets.resources.registry import Registry\n"
        "from thano_assets.session import Session\n"
        "Registry.promote = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "Session(sys.argv[1]).execute(sys.argv[2])"
    )
    text = f"BUILD MODEL m USING ElectraEn OPTIONS ({options}) AS {ROWS}"
    done = subprocess.run([sys.executable, "-c", code, str(reviews.workspace.root), text], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (champion(reviews), len(registry(reviews).versions("m"))) == (1, 2)
    outcome = make(options, incremental=True)
    assert (status(outcome), champion(reviews)) == ((2, "promoted"), 2)


def test_the_decision_waits_for_whoever_changes_the_versions(
    reviews: Session, make: Callable[..., Outcome]
) -> None:
    """Another process that promotes while a challenger is scored would have the wrong one replaced."""
    make(GOOD)
    done = threading.Event()
    other = Registry(reviews.workspace)

    def challenge() -> None:
        make(f"{BAD}, evaluate_on='judges', promote_if='accuracy >= 0'")
        done.set()

    with other.exclusive("m"):
        thread = threading.Thread(target=challenge)
        thread.start()
        assert not done.wait(1.5)
    thread.join(60)
    assert done.is_set()
    assert champion(reviews) == 2


def test_a_model_that_is_deleted_before_the_decision_stays_deleted(
    reviews: Session, make: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = promotion.Gate.judge

    def after_a_delete(gate: promotion.Gate, version: ModelVersion, runtime: Runtime) -> promotion.Verdict:
        registry(reviews).delete("m")
        return judge(gate, version, runtime)

    monkeypatch.setattr(promotion.Gate, "judge", after_a_delete)
    with pytest.raises(ThanoError, match="Model m was deleted while its version 1 was made"):
        make(f"{BAD}, evaluate_on='judges'")
    assert registry(reviews).models() == []


def test_a_challenger_with_other_classes(reviews: Session, make: Callable[..., Outcome]) -> None:
    make(GOOD)
    three = "SELECT review, CASE WHEN review LIKE 'x%e' THEN 'great' ELSE sentiment END AS sentiment FROM "
    reviews.execute(f"CREATE TABLE judges3 AS {three} judges")
    outcome = make(f"{GOOD}, evaluate_on='judges3', promote_if='loss <= champion'", query=f"{three} reviews")
    facts = outcome.checks[0].facts
    assert facts["loss of the champion"] > 1, "the champion gives the third class no chance"
    assert status(outcome) == (2, "promoted")


CANNOT_JUDGE = [
    (
        "evaluate_on='judge'",
        "unknown-table",
        "There is no table judge, which evaluate_on names.",
        "'judge'",
    ),
    (
        "evaluate_on='other'",
        "unknown-column",
        "The table other of evaluate_on has no column sentiment, the label_col.",
        "'other'",
    ),
    (
        "evaluate_on='strange'",
        "training-data",
        "has labels that the training rows do not have (mixed: 1).",
        "'strange'",
    ),
    (
        "evaluate_on='nulls'",
        "training-data",
        "1 rows of nulls, the table of evaluate_on, have NULL",
        "'nulls'",
    ),
    ("evaluate_on='empty'", "training-data", "has no row with a text", "'empty'"),
    (
        "evaluate_on='reviews', strict=True",
        "training-data",
        "72 of the 80 rows of reviews are among the rows to train on.",
        "strict",
    ),
]


def test_what_cannot_judge_is_said_before_the_training(reviews: Session) -> None:
    reviews.execute(
        "CREATE TABLE other AS SELECT 'x' AS review;"
        "CREATE TABLE strange AS SELECT 'x' AS review, 'mixed' AS sentiment;"
        "CREATE TABLE nulls AS SELECT 'x' AS review, NULL::VARCHAR AS sentiment;"
        "CREATE TABLE empty AS SELECT '' AS review, 'positive' AS sentiment"
    )
    before = traces(reviews)
    for options, code, sentence, marked in CANNOT_JUDGE:
        text = f"BUILD MODEL m USING ElectraEn OPTIONS ({GOOD}, {options}) AS {ROWS}"
        with pytest.raises(ThanoError) as caught:
            reviews.execute(text)
        error = caught.value
        assert error.code == code
        assert sentence in error.message
        assert error.line == 1
        assert text[(error.column or 0) - 1 :][: error.length] == marked
        assert traces(reviews) == before
    assert registry(reviews).newest_training("m") is None, "no training was begun"


def test_a_child_keeps_its_parents_order_of_the_classes(reviews: Session) -> None:
    """Numbers sort otherwise than texts: the head's outputs would change places."""
    reviews.execute(
        "CREATE TABLE n AS SELECT review, CASE sentiment WHEN 'positive' THEN 2 ELSE 10 END AS stars FROM reviews;"
        "CREATE TABLE t AS SELECT review, CAST(stars AS VARCHAR) AS stars FROM n"
    )
    options = GOOD.replace("sentiment", "stars")
    reviews.execute(f"BUILD MODEL p USING ElectraEn OPTIONS ({options}) AS SELECT * FROM n")
    reviews.execute(f"FIT MODEL c USING p OPTIONS ({BAD.replace('sentiment', 'stars')}) AS SELECT * FROM t")
    parent, child = registry(reviews).champion("p"), registry(reviews).champion("c")
    assert parent is not None
    assert child is not None
    assert parent.classes == child.classes == ["2", "10"]
    assert parent.metrics["accuracy"] > 0.9
    assert child.metrics["accuracy"] == parent.metrics["accuracy"]


def test_a_second_run_of_one_change_keeps_the_verdict_of_the_first(small_workspace: Workspace) -> None:
    """As when a schedule and a watched file start a run each: the second finds the first one's version."""
    rows = [{"review": f"{'ab'[n % 2]} {'c' * n}", "label": n % 2} for n in range(40)]
    write_rows(small_workspace, "rows.jsonl", rows)
    with Session(small_workspace) as session:
        session.execute("COPY rows FROM 'rows.jsonl'")
        session.execute(
            "BUILD MODEL m USING ElectraEn OPTIONS (epochs=1, batch_size=4, baseline=False, eval_fraction=0.5, "
            "promote_if='accuracy >= 0') AS SELECT review AS text, label FROM rows"
        )
        registry = session._runtime.registry
        (first,) = registry.versions("m")
        instance = dg.DagsterInstance.from_config(str(small_workspace.dagster_home))
        run = run_as_daemon(small_workspace, instance, "models/m")
        assert run.status is dg.DagsterRunStatus.SUCCESS
        (again,) = registry.versions("m")
    assert first.tags["thano.promotion_reason"].startswith("Version 1 is promoted")
    assert again.tags == first.tags
