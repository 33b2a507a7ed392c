"""A base model of one's own text: pre-trained without labels, built on like any other base."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.session.conftest import Recorder, traces, write_rows
from thano_assets.errors import ThanoError
from thano_assets.resources import base_models, resolved_base
from thano_assets.resources.environments import open_workspace
from thano_assets.session import Session

PRETRAIN = "objective='replaced_token_detection', text_col='review', batch_size=8, max_length=16"
CLASSIFY = "text_col='review', label_col='sentiment', epochs=1, batch_size=8, baseline=False"
COPIES = "COPY texts OPTIONS (overwrite=True) FROM 'texts.jsonl';COPY rows OPTIONS (overwrite=True) FROM 'rows.jsonl';"
BASE = f"BUILD MODEL base2 USING ElectraEn OPTIONS ({PRETRAIN}, eval_fraction=0.1, overwrite=True) AS SELECT review FROM texts;"
CLASSIFIER = f"BUILD MODEL clf USING base2 OPTIONS ({CLASSIFY}, overwrite=True) AS SELECT * FROM rows;"
PREDICTED = (
    "CREATE OR REPLACE TABLE p AS PREDICT USING clf OPTIONS (text_col='review') AS SELECT * FROM rows;"
)
SCRIPT = COPIES + BASE + CLASSIFIER + PREDICTED


def texts(count: int, mark: str = "a") -> list[dict[str, object]]:
    return [
        {"review": None if n % 15 == 0 else f"{mark} film about {'abcdefghij'[n % 10]} and {n} others"}
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path, classifier: Path) -> Path:
    """A workspace where the script was run: a base model, a classifier built on it, its predictions."""
    workspace = open_workspace(tmp_path_factory.mktemp("finished") / "workspace")
    shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
    shutil.copytree(classifier, workspace.models_cache / "google" / "electra-small-discriminator")
    write_rows(workspace, "texts.jsonl", texts(60))
    rows: list[dict[str, object]] = [
        {"review": f"{'x x' if n % 2 else 'y y'} {n}", "sentiment": "positive" if n % 2 else "negative"}
        for n in range(20)
    ]
    write_rows(workspace, "rows.jsonl", rows)
    with Session(workspace) as session:
        assert run(session, SCRIPT) == [
            "raw/texts", "tables/texts", "raw/rows", "tables/rows", "training_sets/base2", "models/base2",
            "training_sets/clf", "models/clf", "predictions/p",
        ]  # fmt: skip
    return workspace.root


@pytest.fixture
def session(finished: Path, tmp_path: Path, told: Recorder) -> Iterator[Session]:
    shutil.copytree(finished, tmp_path / "workspace")
    with Session(tmp_path / "workspace", progress=told) as session:
        yield session


@pytest.fixture(scope="module")
def resting(finished: Path) -> Iterator[Session]:
    """A session on that workspace itself, for statements that change nothing."""
    with Session(finished) as session:
        yield session


def run(session: Session, text: str) -> list[str]:
    """What ``thano run`` makes of ``text``: the keys of the assets."""
    steps = session.script(session.parse(text))
    return [asset for step in steps for asset in session.execute_step(step).assets]


def planned(session: Session, text: str) -> dict[str, str]:
    rows = session.plan(text).arrow().to_pylist()
    return {row["asset"]: row["reason"] for row in rows if row["action"] != "skip"}


def rows(session: Session, text: str) -> list[dict[str, Any]]:
    table = session.execute(text).table
    assert table is not None
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def refused(session: Session, text: str) -> str:
    """The error of ``text``, which must leave everything as it was; with the place it is told at."""
    before = traces(session)
    with pytest.raises(ThanoError) as caught:
        session.execute(text)
    assert traces(session) == before
    error = caught.value
    assert error.line is not None, str(error)
    return error.pretty()


def test_a_base_model_is_registered_with_its_figures(session: Session) -> None:
    registry = session._runtime.registry
    version = registry.champion("base2")
    assert version is not None
    assert version.is_base
    assert version.classes == []
    assert version.tags["thano.rows_train"] == "51"  # of 56 texts, 5 held out; 4 rows have none
    assert version.tags["thano.rows_eval"] == "5"
    assert {"discriminator_loss", "generator_loss", "replaced_f1"} <= version.metrics.keys()
    run = registry.client.get_run(version.run_id)
    assert run.data.params["objective"] == "replaced_token_detection"
    assert run.data.params["batch_size"] == "8"
    figures = {file.path for file in registry.client.list_artifacts(version.run_id, "figures")}
    assert figures == {"figures/pre-training_curve.png"}
    (first, *_) = curve = rows(session, "SHOW TRAINING OF MODEL base2")
    assert {"discriminator_loss", "generator_loss", "tokens_per_second"} <= first.keys()
    assert all(row["generator_loss"] > 0 for row in curve)
    (row,) = rows(session, "SHOW VERSIONS OF MODEL base2")
    assert row["status"] == "champion"
    assert row["rows_train"] == 51
    assert 0 < row["discriminator_loss"] < 5
    kinds = {row["name"]: row["kind"] for row in rows(session, "LIST MODEL")}
    assert kinds == {"base2": "base model", "clf": "classifier"}
    (listed,) = [row for row in rows(session, "LIST THANOSQL MODEL") if row["name"] == "base2"]
    assert listed["source"] == "model"
    assert listed["description"] == "base2 version 1 (ELECTRA, ElectraEn pre-trained further on 51 texts)"
    made = {row["item"]: row["value"] for row in rows(session, "SHOW CREATE MODEL clf")}
    assert made["base"] == "base2"
    assert made["base source"] == "version 1 (ELECTRA, ElectraEn pre-trained further on 51 texts)"
    assert made["base revision"] == version.data_version


def test_its_folder_loads_as_an_encoder_and_its_weights_are_what_is_built_on(session: Session) -> None:
    from safetensors.numpy import load_file
    from transformers import AutoModel, AutoTokenizer

    registry = session._runtime.registry
    version = registry.champion("base2")
    assert version is not None
    encoder = AutoModel.from_pretrained(version.path)
    assert encoder.config.model_type == "electra"
    assert AutoTokenizer.from_pretrained(version.path).mask_token == "[MASK]"
    start = next(session.workspace.models_cache.rglob("model.safetensors"))
    name = "encoder.layer.0.output.dense.weight"
    before, after = load_file(start)[f"electra.{name}"], load_file(version.path / "model.safetensors")[name]
    assert before.shape == after.shape
    assert (before != after).any()
    assert (
        session.execute("CONVERT USING base2 OPTIONS (text_col='review') AS SELECT * FROM rows").row_count
        == 20
    )
    session.execute(f"BUILD MODEL head USING base2 OPTIONS ({CLASSIFY}, train='head') AS SELECT * FROM rows")
    built = registry.champion("head")
    assert built is not None
    assert (load_file(built.path / "model.safetensors")[f"electra.{name}"] == after).all()


def test_a_second_run_makes_nothing_and_the_lineage_is_whole(session: Session) -> None:
    assert planned(session, SCRIPT) == {}
    assert run(session, SCRIPT) == []
    lineage = {row["asset"]: row for row in rows(session, "SHOW LINEAGE p")}
    assert list(lineage).index("models/base2") < list(lineage).index("models/clf")
    assert {"raw/texts", "tables/texts", "training_sets/base2"} <= lineage.keys()
    assert all(row["out_of_date"] is None for row in lineage.values())


def test_a_new_version_of_it_makes_what_is_built_on_it_out_of_date(session: Session) -> None:
    write_rows(session.workspace, "texts.jsonl", texts(60)[:-1])
    assert planned(session, SCRIPT) == {
        "raw/texts": "texts.jsonl changed",
        "tables/texts": "1 row of texts.jsonl removed",
        "training_sets/base2": "1 row of texts removed",
        "models/base2": "1 row of the training set removed",
        "models/clf": "base2 is trained again",
        "predictions/p": "clf is trained again",
    }
    assert run(session, SCRIPT)[-3:] == ["models/base2", "models/clf", "predictions/p"]
    assert planned(session, SCRIPT) == {}
    built = session._runtime.registry.champion("clf")
    assert built is not None
    assert built.version == 2
    assert built.tags["thano.base_version"] == "base2 VERSION 2"
    # The former one again: what was trained from it answers again, without training.
    session.execute("PROMOTE MODEL base2 VERSION 1")
    assert planned(session, CLASSIFIER)["models/clf"].startswith(
        "version 1 of base2 answers now, not version 2; version 1 was trained from the very same"
    )
    assert run(session, CLASSIFIER) == ["models/clf"]
    answering = session._runtime.registry.champion("clf")
    assert answering is not None
    assert answering.version == 1


def test_an_option_of_the_base_and_its_objective_are_told_in_the_plan(session: Session) -> None:
    other = SCRIPT.replace("batch_size=8, max_length=16", "batch_size=4, max_length=16")
    assert planned(session, other)["models/base2"] == "batch_size changed from 8 to 4"
    # Its rows are the same: labels do not matter to it.
    assert "training_sets/base2" not in planned(session, other)
    explicit = SCRIPT.replace("max_length=16,", "max_length=16, epochs=1,")
    assert planned(session, explicit) == {}, "the objective has a default of its own"
    assert planned(session, SCRIPT.replace("max_length=16,", "max_length=16, epochs=3,"))["models/base2"] == (
        "max_epochs changed from 1 to 3"
    )


def test_a_script_may_replace_the_base_between_two_that_are_built_on_it(session: Session) -> None:
    script = (
        SCRIPT
        + f"BUILD MODEL base2 USING ElectraEn OPTIONS ({PRETRAIN}, seed=7, overwrite=True) AS SELECT review FROM texts;"
        + f"BUILD MODEL clf2 USING base2 OPTIONS ({CLASSIFY}) AS SELECT * FROM rows;"
    )
    made = run(session, script)
    assert made == ["models/base2", "training_sets/clf2", "models/clf2"]
    registry = session._runtime.registry
    first, second = registry.champion("clf"), registry.champion("clf2")
    assert first is not None
    assert second is not None
    assert first.tags["thano.base_revision"] != second.tags["thano.base_revision"]
    assert run(session, script) == []


def test_what_is_missing_behind_a_classifier_is_made_with_it(session: Session) -> None:
    session._runtime.registry.delete("base2")
    session._runtime.registry.delete("clf")
    result = session.execute(CLASSIFIER)
    assert result.assets == ["training_sets/clf", "models/base2", "models/clf"]
    assert planned(session, SCRIPT) == {}


def test_pre_training_goes_on_from_one_of_ones_own(session: Session) -> None:
    session.execute(f"BUILD MODEL base3 USING base2 OPTIONS ({PRETRAIN}) AS SELECT review FROM texts")
    version = session._runtime.registry.champion("base3")
    assert version is not None
    assert version.tags["thano.base_version"] == "base2 VERSION 1"
    assert resolved_base.model_type(version.path) == "electra"


def test_fit_model_goes_on_from_what_was_built_on_it(session: Session) -> None:
    session.execute("FIT MODEL more USING clf OPTIONS (" + CLASSIFY + ") AS SELECT * FROM rows")
    session._runtime.registry.delete("base2")
    session.execute("FIT MODEL still USING clf OPTIONS (" + CLASSIFY + ") AS SELECT * FROM rows")
    version = session._runtime.registry.champion("still")
    assert version is not None
    assert (version.tags["thano.base"], version.tags["thano.base_version"]) == ("base2", "base2 VERSION 1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("PREDICT USING base2 OPTIONS (text_col='review') AS SELECT * FROM rows",
         "base2 is a base model, which gives no labels. BUILD MODEL name USING base2 "),
        ("PREDICT USING base2 VERSION 1 OPTIONS (text_col='review') AS SELECT * FROM rows", "gives no labels"),
        ("SELECT * FROM (PREDICT USING base2 OPTIONS (text_col='review') AS SELECT * FROM rows)", "gives no labels"),
        ("EXPLAIN PREDICT USING base2 OPTIONS (text_col='review') AS SELECT * FROM rows", "gives no labels"),
        ("EVALUATE USING base2 OPTIONS (text_col='review', label_col='sentiment') AS SELECT * FROM rows",
         "gives no labels"),
        (f"FIT MODEL x USING base2 OPTIONS ({CLASSIFY}) AS SELECT * FROM rows", "knows no labels to go on with"),
        (f"BUILD MODEL x USING clf OPTIONS ({CLASSIFY}) AS SELECT * FROM rows",
         "clf is a classifier, not a base model. FIT MODEL … USING clf goes on"),
        (f"BUILD MODEL x USING bas2 OPTIONS ({CLASSIFY}) AS SELECT * FROM rows",
         "There is no base model bas2. Did you mean base2? The base models are: AlbertEn, AlbertKo, base2, BertEn,"),
        (f"BUILD MODEL x USING base2 OPTIONS ({CLASSIFY}, base_revision='main') AS SELECT * FROM rows",
         "base_revision is of the hub, and base2 was built here."),
        (f"BUILD MODEL base2 USING base2 OPTIONS ({PRETRAIN}, overwrite=True) AS SELECT * FROM texts",
         "base2 cannot be its own base model."),
        (f"BUILD MODEL ElectraKo USING base2 OPTIONS ({PRETRAIN}) AS SELECT * FROM texts",
         "ElectraKo is a base model of the catalogue, so USING ElectraKo would never mean this one."),
        (f"BUILD MODEL base2 USING ElectraEn OPTIONS ({CLASSIFY}, overwrite=True) AS SELECT * FROM rows",
         "base2 is a base model (version 1), so it cannot become a classifier."),
        (f"BUILD MODEL clf USING ElectraEn OPTIONS ({PRETRAIN}, overwrite=True) AS SELECT * FROM rows",
         "clf is a classifier (version 1), so it cannot become a base model."),
        (f"BUILD MODEL base2 USING ElectraEn OPTIONS ({PRETRAIN}) AS SELECT * FROM rows",
         "The model base2 exists already (version 1)."),
        (f"BUILD MODEL x USING SBERTEn OPTIONS ({PRETRAIN}) AS SELECT * FROM texts", "SBERTEn makes embeddings"),
        ("BUILD MODEL x USING ElectraEn OPTIONS (objective='replaced_token_detection', text_col='text') "
         "AS SELECT * FROM texts", "text_col='text' names a column that the query does not have."),
        (f"BUILD MODEL x USING ElectraEn OPTIONS ({PRETRAIN}) AS SELECT * FROM texts WHERE false",
         "The query gives 0 rows."),
        (f"BUILD MODEL x USING ElectraEn OPTIONS ({PRETRAIN}) AS SELECT * FROM texts WHERE review IS NULL",
         "None of the query's 4 rows has a text."),
    ],
)  # fmt: skip
def test_what_is_refused(resting: Session, text: str, sentence: str) -> None:
    assert sentence in refused(resting, text)


def test_an_encoder_of_another_layout_is_refused_before_anything_runs(session: Session) -> None:
    config = session.workspace.models_cache / "google" / "electra-small-discriminator" / "config.json"
    target = session.workspace.models_cache / "albert"
    shutil.copytree(config.parent, target)
    text = config.read_text("utf-8").replace('"electra"', '"albert"')
    (target / "config.json").write_text(text, "utf-8")
    told = refused(session, f"BUILD MODEL x USING 'albert' OPTIONS ({PRETRAIN}) AS SELECT * FROM texts")
    assert (
        "The pre-training of albert (ALBERT) cannot go on here. objective='replaced_token_detection' takes"
        in told
    )


def test_one_that_was_stopped_goes_on_where_it_was(
    session: Session, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.learning.checkpoint import Checkpoints

    saved = Checkpoints.save
    steps: list[int] = []

    def stopped(self: Checkpoints, accelerator: Any, group: Any, values: Any, *, now: bool = False) -> None:
        saved(self, accelerator, group, values, now=True)
        steps.append(values()["step"])
        if len(steps) == 3:
            raise KeyboardInterrupt

    before = traces(session)
    text = f"BUILD MODEL b USING ElectraEn OPTIONS ({PRETRAIN}) AS SELECT review FROM texts"
    monkeypatch.setattr(Checkpoints, "save", stopped)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - Ctrl-C, in whatever form Dagster lets it through
        session.execute(text)
    assert traces(session) == before
    session.execute(text)
    assert any(message.startswith("Going on from step 3 of ") for message in told.messages)
    assert steps[:4] == [1, 2, 3, 4]


def test_a_catalogue_name_of_another_layout_is_refused_without_its_weights(resting: Session) -> None:
    told = refused(resting, f"BUILD MODEL x USING AlbertKo OPTIONS ({PRETRAIN}) AS SELECT * FROM texts")
    assert "The pre-training of AlbertKo (ALBERT) cannot go on here." in told


def test_deleting_it_tells_what_was_built_on_it(session: Session) -> None:
    assert "models/clf read it and cannot be made again" in session.execute("DELETE MODEL base2").warnings[0]
    assert "There is no base model base2." in refused(session, CLASSIFIER)


def test_deleting_a_version_tells_what_was_built_on_it(session: Session) -> None:
    session.execute(BASE.replace("batch_size=8", "batch_size=4"))
    warnings = session.execute("DELETE MODEL base2 VERSION 1").warnings
    assert warnings == ["clf VERSION 1 went on from it and cannot be replayed without it."]
    told = refused(session, "REBUILD MODEL clf VERIFY")
    assert "clf VERSION 1 was built on base2 VERSION 1, which is no longer kept." in told


def test_rebuilt_from_what_is_kept_it_comes_out_equal(session: Session) -> None:
    report = {row["what"]: row for row in rows(session, "REBUILD MODEL base2 VERIFY")}
    assert {what for what, row in report.items() if row["equal"] is not True} == set()
    assert {"training rows", "discriminator_loss", "weights", "base model"} <= report.keys()
    assert "predictions" not in report
    # A classifier is rebuilt on the version of the base that it was built on.
    session.execute(BASE.replace("batch_size=8", "batch_size=4"))
    assert all(row["equal"] for row in rows(session, "REBUILD MODEL clf VERIFY"))
    result = session.execute("REBUILD MODEL clf")
    assert "version 2" in result.summary
    built = session._runtime.registry.champion("clf")
    assert built is not None
    assert built.tags["thano.base_version"] == "base2 VERSION 1"
    assert planned(session, CLASSIFIER) == {"models/clf": "version 2 of base2 answers now, not version 1"}
    assert "version 3" in session.execute("REBUILD MODEL base2 VERSION 1").summary


def test_a_name_in_quotes_means_a_base_model_where_a_statement_makes_one(session: Session) -> None:
    session.execute(f'BUILD MODEL "my base" USING ElectraEn OPTIONS ({PRETRAIN}) AS SELECT review FROM texts')
    session.execute(f'BUILD MODEL x USING "my base" OPTIONS ({CLASSIFY}) AS SELECT * FROM rows')
    built = session._runtime.registry.champion("x")
    assert built is not None
    assert built.tags["thano.base_version"] == "my base VERSION 1"
    assert "models/my base" in {row["asset"] for row in rows(session, "SHOW LINEAGE x")}


def test_an_environment_builds_on_production_and_on_its_own(
    session: Session, mlflow_database: Path, told: Recorder
) -> None:
    environment = open_workspace(session.workspace.root, environment="trial")
    (environment.mlflow / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    with Session(environment, progress=told) as trial:
        assert run(trial, SCRIPT) == []
        assert run(trial, SCRIPT.replace("epochs=1", "epochs=2")) == ["models/clf", "predictions/p"]
        built = trial._runtime.registry.champion("clf")
        assert built is not None
        assert built.tags["thano.base_version"] == "base2 VERSION 1"
        changed = SCRIPT.replace("batch_size=8, max_length=16", "batch_size=4, max_length=16")
        assert run(trial, changed) == ["models/base2", "models/clf", "predictions/p"]
        assert len(trial._runtime.registry.own_versions("base2")) == 1  # type: ignore[attr-defined]
    champion = session._runtime.registry.champion("base2")
    assert champion is not None
    assert champion.version == 1
    assert planned(session, SCRIPT) == {}


def test_the_names_of_the_catalogue_are_known_to_the_language() -> None:
    from thano_assets.sql.base_names import CATALOGUE_NAMES

    assert set(CATALOGUE_NAMES) == {entry.name for entry in base_models.catalogue()}
