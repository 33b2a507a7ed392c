"""OPTIONS (tune=N): the search before a training, as a person and as MLflow see it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.session.conftest import Recorder, write_rows
from thano_assets.errors import ThanoError
from thano_assets.session import Session

OPTIONS = "text_col='review', label_col='sentiment', batch_size=8, seed=3, baseline=False"


@pytest.fixture
def reviews(session: Session) -> Session:
    """A session with the table ``reviews`` of 60 rows, of different lengths."""
    rows: list[dict[str, object]] = []
    for n in range(30):
        number = " ".join("cdefghijkl"[int(digit)] for digit in f"{n:02d}")
        more = " q" * (n % 3) * 25
        rows.append({"review": f"x x x x {number}{more}", "sentiment": "positive"})
        rows.append({"review": f"y y y y {number}{more}", "sentiment": "negative"})
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute("COPY reviews FROM 'reviews.jsonl'")
    return session


def build(name: str, options: str) -> str:
    return f"BUILD MODEL {name} USING ElectraEn OPTIONS ({OPTIONS}, {options}) AS SELECT * FROM reviews"


def runs_of(session: Session, name: str) -> list[Any]:
    """All runs of the model's experiment, oldest first."""
    client = session._runtime.registry.client
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def test_trials_are_nested_runs_and_the_model_is_that_of_the_best_settings(
    reviews: Session, told: Recorder
) -> None:
    result = reviews.execute(build("m", "tune=3, max_epochs=2"))
    version = reviews._runtime.registry.champion("m")
    assert version is not None
    chosen = version.tags["thano.tuned"]
    assert f"version 1, tuned to {chosen} (trial " in result.summary
    assert "learning_rate=" in chosen
    assert "max_epochs" not in chosen, "it is given"

    parent, *trials = runs_of(reviews, "m")
    assert parent.info.run_id == version.run_id
    assert parent.info.status == "FINISHED"
    assert [trial.data.tags["mlflow.parentRunId"] for trial in trials] == [parent.info.run_id] * 3
    assert [trial.info.run_name for trial in trials] == ["trial 1", "trial 2", "trial 3"]
    assert {trial.info.status for trial in trials} == {"FINISHED"}
    assert {trial.data.tags["thano.trial_state"] for trial in trials} == {"complete"}
    assert {trial.data.params["epochs"] for trial in trials} == {"2"}
    assert all({"accuracy", "f1_macro", "loss", "eval_loss"} <= set(trial.data.metrics) for trial in trials)
    assert trials[0].data.params["learning_rate"] == "5e-05"
    winner = trials[int(version.tags["thano.trials"].split()[0]) - 1]
    assert parent.data.params["tune"] == "3"
    assert parent.data.params["learning_rate"] == winner.data.params["learning_rate"]
    assert winner.data.metrics["accuracy"] == max(trial.data.metrics["accuracy"] for trial in trials)
    artifacts = {item.path for item in reviews._runtime.registry.client.list_artifacts(parent.info.run_id)}
    assert {"trials.csv", "figures", "statement.sql"} <= artifacts
    figures = reviews._runtime.registry.client.list_artifacts(parent.info.run_id, "figures")
    assert {"figures/trials.png", "figures/training_curve.png"} <= {item.path for item in figures}

    # The same without the search.
    reviews.execute(build("plain", f"max_epochs=2, {chosen}"))
    plain = reviews._runtime.registry.champion("plain")
    assert plain is not None
    assert plain.data_version == version.data_version
    assert plain.metrics == version.metrics

    # What is asked of the model later.
    curve = reviews.execute("SHOW TRAINING OF MODEL m").table
    assert curve is not None
    assert set(curve.column("run_id").to_pylist()) == {parent.info.run_id}
    assert max(curve.column("epoch").to_pylist()) == 2
    shown = reviews.execute("SHOW CREATE MODEL m").table
    assert shown is not None
    assert "tune=3" in str(shown.to_pylist())
    assert any(line.startswith("Trial 2 of 3: learning rate ") for line in told.messages)
    assert not (reviews.workspace.models_cache / "checkpoints" / version.tags["thano.fingerprint"]).exists()

    # Trained again from the same, it comes out the same, search included.
    report = reviews.execute("REBUILD MODEL m VERIFY").table
    assert report is not None
    found = {row["what"]: row for row in report.to_pylist()}
    assert found["tuned"]["now"] == chosen
    assert {what for what, row in found.items() if row["equal"] is not True} == set()
    newest = reviews._runtime.registry.newest_training("m")
    assert newest is not None
    assert newest.run_id == parent.info.run_id


def test_what_is_unchanged_is_not_tuned_again_and_a_plan_counts_the_trials(reviews: Session) -> None:
    text = build("m", "tune=2, max_epochs=1")
    planned = reviews.execute(f"PLAN {text}").table
    assert planned is not None
    assert "2 trials, then the training" in str(planned.to_pylist())
    reviews.execute(text)
    assert len(runs_of(reviews, "m")) == 3
    planned = reviews.execute(f"PLAN {text.replace('tune=2', 'tune=3, overwrite=True')}").table
    assert planned is not None
    (row,) = [row for row in planned.to_pylist() if row["asset"] == "models/m"]
    assert "; 3 trials, then the training" in row["reason"]
    # As `thano run` does it: the same script again.
    for step in reviews.script(reviews.parse(f"COPY reviews FROM 'reviews.jsonl'; {text}")):
        reviews.execute_step(step)
    assert len(runs_of(reviews, "m")) == 3
    assert len(reviews._runtime.registry.versions("m")) == 1


def test_a_stopped_build_goes_on_with_its_trials(
    reviews: Session, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = build("m", "tune=3, max_epochs=1")
    say = told.message

    def stop(line: str) -> None:
        say(line)
        if line.startswith("Trial 2 of 3"):
            raise KeyboardInterrupt

    monkeypatch.setattr(told, "message", stop)
    with pytest.raises((KeyboardInterrupt, ThanoError)):
        reviews.execute(text)
    monkeypatch.setattr(told, "message", say)
    first, *done = runs_of(reviews, "m")
    assert "RUNNING" not in {run.info.status for run in (first, *done)}
    assert len(done) == 2
    assert reviews._runtime.registry.versions("m") == []

    reviews.execute(text)
    version = reviews._runtime.registry.champion("m")
    assert version is not None
    runs = runs_of(reviews, "m")
    assert len(runs) == 5, "two builds and three trials"
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == version.run_id]
    assert sorted(run.info.run_name for run in nested) == ["trial 1", "trial 2", "trial 3"]
    assert {run.info.status for run in nested} == {"FINISHED"}
    assert "Going on after 2 of 3 trials, which had ended before" in told.messages


def test_a_child_is_tuned_from_its_parent(reviews: Session) -> None:
    reviews.execute(build("m", "max_epochs=1, max_length=24"))
    reviews.execute(
        f"FIT MODEL child USING m OPTIONS ({OPTIONS}, tune=2, max_epochs=1) AS SELECT * FROM reviews"
    )
    trials = [run for run in runs_of(reviews, "child") if "mlflow.parentRunId" in run.data.tags]
    assert [run.data.params["max_length"] for run in trials] == ["24", "24"]
    with pytest.raises(ThanoError, match="max_length is the parent's"):
        reviews.execute(
            f"FIT MODEL other USING m OPTIONS ({OPTIONS}, tune=2, max_epochs=1, learning_rate=0.1) "
            "AS SELECT * FROM reviews"
        )
