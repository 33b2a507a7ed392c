from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from thano_assets.errors import InvalidOption, UnknownModel, WorkspaceError
from thano_assets.resources import mlflow_reader
from thano_assets.resources.mlflow_client import versions as _client_versions
from thano_assets.resources.registry import ModelVersion, Registry
from thano_assets.resources.workspace import Workspace

STATEMENT = "BUILD MODEL 나의_모델 USING ElectraEn\nOPTIONS (epochs=1)\nAS SELECT * FROM t"
TAGS = {"thano.statement": STATEMENT, "thano.base": "ElectraEn", "thano.base_source": "package x 0.1.0"}
LABELS = {"classes": ["negative", "positive"], "type": "VARCHAR"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def registry(tracked_workspace: Workspace) -> Registry:
    return Registry(tracked_workspace)


@pytest.fixture
def build(registry: Registry, classifier: Path) -> Callable[..., ModelVersion]:
    """Registers a version of a model as a training would."""

    def run(name: str = "m", metrics: dict[str, float] | None = None, **options: Any) -> ModelVersion:
        with registry.build(name, tags=TAGS, params={"epochs": 1, "base": "ElectraEn"}) as run:
            for step in range(3):
                run.log_metrics({"loss": 1 / (step + 1), "learning_rate": 1e-4}, step)
            run.log_figure("training_curve.png", PNG)
            run.log_dataset(name="training set of m", digest="f" * 64, rows=7, source="/snapshots/f.parquet")
            given = {"labels": LABELS, "metrics": metrics or {"accuracy": 0.9, "loss": 0.25}, **options}
            return run.register(classifier, **given)

    return run


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def runs_of(registry: Registry) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in registry.client.search_experiments()]
    return list(registry.client.search_runs(experiments))


# -------------------------------------------------------------------------------------------- everyday


def test_before_the_first_model(workspace: Workspace) -> None:
    registry = Registry(workspace)
    assert registry.models() == []
    assert registry.versions("m") == []
    assert registry.resolve("m") is None
    assert registry.champion("m") is None
    assert not registry.database.exists(), "asking makes nothing"


def test_a_version_is_complete(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    version = build("나의 모델", tags={"thano.max_length": "32"})
    assert registry.models() == ["나의 모델"]
    assert (version.name, version.version, version.aliases) == ("나의 모델", 1, ("champion",))
    assert (version.classes, version.label_type) == (["negative", "positive"], "VARCHAR")
    assert version.metrics == {"accuracy": 0.9, "loss": 0.25}
    assert version.params == {"epochs": "1", "base": "ElectraEn"}
    assert version.tags == {**TAGS, "thano.max_length": "32"}
    assert timedelta(0) <= datetime.now(UTC) - version.created < timedelta(minutes=5)
    assert STATEMENT in version.description
    assert "package x 0.1.0" in version.description
    assert files_under(version.path) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    weights = list(registry.workspace.root.rglob("*.safetensors"))
    assert weights == [version.path / "model.safetensors"], "the weights are stored once"
    assert "models:/나의 모델@champion" in (version.path.parent / "README.md").read_text(encoding="utf-8")


def test_the_run_in_mlflow(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    version = build()
    client = registry.client
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "m v1 · acc 0.90"
    assert [metric.value for metric in client.get_metric_history(version.run_id, "loss")] == [1, 1 / 2, 1 / 3]
    assert run.data.metrics["accuracy"] == 0.9
    assert run.data.metrics["final_loss"] == 0.25, "not a last point of the training curve"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("training set of m", "f" * 36)
    assert '"num_rows": 7' in dataset.dataset.profile
    assert {file.path for file in client.list_artifacts(version.run_id)} == {"figures", "statement.sql"}
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert str(logged.status) == "READY"
    assert {metric.key: metric.value for metric in logged.metrics} == {"accuracy": 0.9, "final_loss": 0.25}
    assert '"name": "m"' in logged.tags["mlflow.modelVersions"]


def test_versions_and_aliases(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    build()
    assert build().version == 2
    build(champion=False)
    assert [one.version for one in registry.versions("m")] == [1, 2, 3]
    champion = registry.resolve("m")
    assert champion is not None
    assert champion.version == 2
    pinned = registry.resolve("m", version=1)
    assert pinned is not None
    assert (pinned.version, pinned.aliases) == (1, ())
    assert registry.resolve("m", version=4) is None
    assert registry.resolve("m", alias="challenger") is None
    assert registry.resolve("M") == registry.resolve("m")  # names go without case
    assert registry.promote("m", 3).aliases == ("champion",)
    assert registry.promote("m", 1, alias="challenger").aliases == ("challenger",)
    by_alias = registry.resolve("m", alias="challenger")
    assert by_alias is not None
    assert by_alias.version == 1
    with pytest.raises(UnknownModel, match=r"Model m has no version 9. Its versions are: 1, 2, 3."):
        registry.promote("m", 9)


def test_labels_of_another_type(registry: Registry, make_classifier: Callable[..., Path]) -> None:
    folder = make_classifier(("1", "2", "10"))
    with registry.build("stars") as run:
        run.register(folder, labels={"classes": ["1", "2", "10"], "type": "BIGINT"}, metrics={})
    version = registry.resolve("stars")
    assert version is not None
    assert (version.classes, version.label_type) == (["1", "2", "10"], "BIGINT")
    (version.path.parent / "labels.json").unlink()
    bare = replace(version)
    assert (bare.classes, bare.label_type) == (["1", "2", "10"], "VARCHAR")


def test_addresses(
    registry: Registry, build: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = build("나 m")
    experiment = registry.client.get_run(version.run_id).info.experiment_id
    assert registry.run_url(version.run_id) == (
        f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{version.run_id}"
        "?workflowType=machine_learning"
    )
    assert registry.model_url("나 m", 1) == (
        "http://127.0.0.1:5000/#/models/%EB%82%98%20m/versions/1?workflowType=machine_learning"
    )
    monkeypatch.setenv("THANO_MLFLOW_URL", "https://mlflow.example.com/")
    assert registry.model_url("m") == "https://mlflow.example.com/#/models/m?workflowType=machine_learning"


@pytest.mark.parametrize("name", ["a/b", "a:b", "", " ", "x" * 300])
def test_names_that_mlflow_does_not_take(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidOption, match="which MLflow does not take"), registry.build(name):
        pass
    assert runs_of(registry) == []


@pytest.mark.parametrize("name", ["my_model", "모델 a.b-c", "it's", "q\"uo'te", "100%", "-"])
def test_names_of_any_kind(registry: Registry, build: Callable[..., ModelVersion], name: str) -> None:
    build(name)
    assert registry.models() == [name]
    found = registry.resolve(name)
    assert found is not None
    assert registry._rows(name) == _client_versions(registry.client, name, None, None)
    assert registry.delete(name) == [1]


def test_long_statements_are_kept_whole(registry: Registry, classifier: Path) -> None:
    statement = "BUILD MODEL m USING ElectraEn AS SELECT '" + "x" * 20_000 + "' AS text"
    with registry.build("m", tags={"thano.statement": statement}) as run:
        run.register(classifier, labels=LABELS, metrics={})
    version = registry.resolve("m")
    assert version is not None
    assert version.tags["thano.statement"] == statement


# -------------------------------------------------------------------- the fast way reads what MLflow says


def test_reading_agrees_with_mlflow(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    for name in ("a", "b", "나 c"):
        build(name)
        build(name, champion=False)
    registry.client.set_registered_model_alias("a", "second", "2")
    registry.client.set_model_version_tag("a", "1", "by hand", "yes")
    build("a")
    registry.delete("a", 2)
    for name in ("a", "b", "나 c", "none"):
        fast = registry._rows(name)
        assert fast == _client_versions(registry.client, name, None, None)
        assert registry._rows(name, version=1) == _client_versions(registry.client, name, 1, None)
        assert registry._rows(name, alias="champion") == _client_versions(
            registry.client, name, None, "champion"
        )
    assert registry.models() == [model.name for model in registry.client.search_registered_models()]


def test_another_layout_is_asked_through_mlflow(
    registry: Registry, build: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    fast = registry.versions("m")

    def unknown(*_: Any) -> None:
        raise mlflow_reader.UnknownSchema("no such column: model_versions.storage_location")

    monkeypatch.setattr(mlflow_reader, "read", unknown)
    assert registry.versions("m") == fast
    assert registry.models() == ["m"]
    assert registry.run_url(fast[0].run_id).endswith(f"/runs/{fast[0].run_id}?workflowType=machine_learning")


def test_a_file_that_is_no_database(workspace: Workspace) -> None:
    registry = Registry(workspace)
    registry.database.write_bytes(b"not SQLite" * 100)
    with pytest.raises(WorkspaceError, match=r"mlflow\.db is no SQLite database"):
        registry.models()


def test_an_older_schema_says_how_to_upgrade(registry: Registry) -> None:
    with sqlite3.connect(registry.database) as connection:
        connection.execute("ALTER TABLE model_versions RENAME COLUMN storage_location TO place")
        connection.execute("UPDATE alembic_version SET version_num = '97727af70f4d'")
    with pytest.raises(WorkspaceError, match="mlflow db upgrade sqlite:///"):
        registry.versions("m")


def test_a_journal_that_a_kill_left_is_rolled_back(
    registry: Registry, build: Callable[..., ModelVersion]
) -> None:
    build()
    code = (
        "import os, sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nc.execute('PRAGMA cache_size = 2')\n"
        "c.execute('BEGIN IMMEDIATE')\nc.execute(\"UPDATE model_versions SET description = hex(randomblob(2000000))\")\n"
        "c.execute('DELETE FROM registered_model_aliases')\nos.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(registry.database)], check=False)
    assert registry.database.with_name("mlflow.db-journal").exists()
    champion = registry.champion("m")
    assert champion is not None
    assert STATEMENT in champion.description


def test_reading_imports_no_mlflow(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    build()
    code = (
        "import sys\nfrom thano_assets.resources.registry import Registry\n"
        "from thano_assets.resources.workspace import Workspace\nregistry = Registry(Workspace(sys.argv[1]))\n"
        "version = registry.resolve(registry.models()[0])\nassert version.classes and registry.run_url(version.run_id)\n"
        "heavy = {'mlflow', 'torch', 'transformers', 'pandas', 'pyarrow', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(registry.workspace.root)], check=True)


def test_a_moved_workspace_finds_its_models(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    build()
    moved = registry.workspace.root.rename(registry.workspace.root.with_name("moved elsewhere"))
    found = Registry(Workspace(moved)).resolve("m")
    assert found is not None
    assert found.path.is_relative_to(moved)
    assert (found.path / "model.safetensors").is_file()


# ------------------------------------------------------------------------------ failures leave no version


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_a_failed_build_leaves_only_its_run(
    registry: Registry, error: type[BaseException], status: str
) -> None:
    with contextlib.suppress(error), registry.build("m", tags=TAGS) as run:
        run.log_metrics({"loss": 0.5}, 1)
        raise error
    (found,) = runs_of(registry)
    assert found.info.status == status
    assert found.data.metrics == {"loss": 0.5}, "the curve up to there is kept"
    assert registry.models() == []
    assert not list((registry.workspace.root / ".locks").glob("run-*"))


def test_a_folder_that_is_no_classifier(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(WorkspaceError, match="is not a folder of a text classifier"),
        registry.build("m") as run,
    ):
        run.register(tmp_path / "model", labels=LABELS, metrics={})
    assert registry.models() == []
    assert files_under(registry.artifacts) == []


@pytest.mark.parametrize("step", ["log_model_artifacts", "log_outputs", "create_model_version"])
def test_an_interruption_amid_registration(
    registry: Registry, build: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    build()
    before = files_under(registry.artifacts)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry.client, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert [one.version for one in registry.versions("m")] == [1]
    left = [path for path in files_under(registry.artifacts) if path not in before]
    assert all("/models/" not in path for path in left), "no weights without a version"
    monkeypatch.undo()
    assert build().version == 2


def test_no_space_left_is_a_sentence(
    registry: Registry, build: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry.client, "log_model_artifacts", full)
    with pytest.raises(WorkspaceError, match=r"The model m cannot be kept in .*: No space left on device"):
        build()
    assert registry.models() == []


def test_what_a_killed_build_left_is_cleared_away(
    registry: Registry, build: Callable[..., ModelVersion], classifier: Path
) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom thano_assets.resources.registry import Registry\n"
        "from thano_assets.resources.workspace import Workspace\nregistry = Registry(Workspace(sys.argv[1]))\n"
        "with registry.build('m') as run:\n"
        "    registry.client.create_model_version = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "    run.register(Path(sys.argv[2]), labels={'classes': ['a', 'b']}, metrics={})"
    )
    subprocess.run([sys.executable, "-c", code, str(registry.workspace.root), str(classifier)], check=False)
    (killed,) = runs_of(registry)
    assert killed.info.status == "RUNNING"
    assert any("safetensors" in path for path in files_under(registry.artifacts))
    assert registry.resolve("m") is None
    version = build()
    assert version.version == 1
    assert registry.client.get_run(killed.info.run_id).info.status == "KILLED"
    weights = [path for path in files_under(registry.artifacts) if path.endswith(".safetensors")]
    assert len(weights) == 1
    assert not list((registry.workspace.root / ".locks").glob("run-*"))


def test_a_build_that_goes_on_is_left_alone(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    with registry.build("slow") as run:
        build("m")
        assert registry.client.get_run(run.run_id).info.status == "RUNNING"


# ---------------------------------------------------------------------------------------------- deleting


def test_delete_a_version_frees_its_files(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    first, second, third = build(), build(), build(champion=False)
    assert registry.delete("m", 2) == [2]
    assert not second.path.exists()
    assert first.path.exists()
    assert [one.version for one in registry.versions("m")] == [1, 3]
    champion = registry.champion("m")
    assert champion is not None
    assert champion.version == 3, "the newest takes over from a deleted champion"
    assert registry.client.get_run(second.run_id).info.status == "FINISHED", (
        "the record of the training stays"
    )
    assert registry.delete("m", 1) == [1]
    assert registry.delete("m", 3) == [3]
    assert registry.models() == []
    assert not third.path.exists()
    assert build().version == 1


def test_delete_a_model(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    build()
    build()
    other = build("other")
    assert registry.delete("m") == [1, 2]
    assert registry.models() == ["other"]
    weights = list(registry.artifacts.rglob("*.safetensors"))
    assert weights == [other.path / "model.safetensors"]
    with pytest.raises(UnknownModel, match=r"There is no model m."):
        registry.delete("m")
    with pytest.raises(UnknownModel, match=r"There is no model ohter. Did you mean other\?"):
        registry.delete("ohter")


def test_what_mlflow_shows_of_a_version_fits_into_any_database(
    registry: Registry, build: Callable[..., ModelVersion]
) -> None:
    long = "BUILD MODEL m USING ElectraEn AS SELECT 1 -- " + "x" * 20_000
    version = build(tags={"thano.statement": long, "thano.rows_train": "40", "thano.rows_eval": "10"})
    registry.tag(version, {"thano.promotion_reason": "Version 1 is promoted: " + "y" * 300})
    found = registry.resolve("m")
    assert found is not None
    assert found.tags["thano.statement"] == long  # programs read all of it
    assert long in (found.path.parent / "README.md").read_text(encoding="utf-8")
    assert len(found.description) <= 5_000  # a column of PostgreSQL has no more
    assert found.description.startswith("> Version 1 is promoted: yyy")
    assert found.description.endswith('print(model.predict(["a text", "another text"]))\n```')
    assert found.description.count("```") == 4


def test_a_tag_that_somebody_wrote_over_hides_no_model(
    registry: Registry, build: Callable[..., ModelVersion]
) -> None:
    build()
    for text in ("mine", "[1]", ""):
        registry.client.set_model_version_tag("m", "1", "thano.details", text)
        found = registry.resolve("m")
        assert found is not None
        assert (found.version, found.tags) == (1, {})


def test_files_that_are_gone(registry: Registry, build: Callable[..., ModelVersion]) -> None:
    version = build()
    shutil.rmtree(version.path)
    with pytest.raises(WorkspaceError, match="The files of model m version 1 are not at"):
        registry.resolve("m")
    assert registry.delete("m") == [1]


# -------------------------------------------------------------------------------- elsewhere and together

STRANGER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "thano_assets":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import mlflow, pandas
long = "a long text " * 1000
model = mlflow.pyfunc.load_model("models:/나의 모델@champion")
frame = pandas.DataFrame({"n": [1, 2], "text": ["good", long]})
records = [{"n": 1, "text": "good"}, {"n": 2, "text": long}]
for rows in (["good", long], frame, pandas.Series(["good", long]), records, frame[["text"]]):
    answer = model.predict(rows)
    assert list(answer.columns) == ["predicted", "probability", "probabilities"] and len(answer) == 2, answer
    for label, best, every in answer.itertuples(index=False):
        assert set(every) == {"negative", "positive"} and abs(sum(every.values()) - 1) < 1e-6, every
        assert every[label] == best == max(every.values())
nothing = model.predict(pandas.DataFrame({"text": [None, float("nan"), " ", "good"]}))
assert [value is None for value in nothing["predicted"]] == [True, True, True, False], nothing
assert list(nothing["probability"].isna()) == [True, True, True, False], nothing
assert list(model.predict(frame.head(0)).columns) == list(answer.columns)
assert len(model.predict([])) == 0
for wrong in ([3], pandas.DataFrame({"a": ["x"], "b": ["y"]})):
    try:
        model.predict(wrong)
    except mlflow.MlflowException as error:
        assert error.message in ("The model reads texts, and 3 is a int.", "The rows have no column text; they have: a, b."), error
    else:
        raise AssertionError(wrong)
pipeline = mlflow.transformers.load_model("models:/나의 모델/1")
assert pipeline("good")[0]["label"] == answer["predicted"][0]
assert abs(pipeline("good")[0]["score"] - answer["probability"][0]) < 1e-5
assert pipeline(long, truncation=True)[0]["label"] == answer["predicted"][1]
assert pipeline.tokenizer.model_max_length == 48
assert not [name for name in sys.modules if name.startswith("thano_assets")]
"""


def test_a_stranger_loads_the_model(
    registry: Registry, build: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    build("나의 모델", tags={"thano.max_length": "48"})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "MLFLOW_TRACKING_URI": registry.tracking_uri,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([sys.executable, "-c", STRANGER, "48"], check=True, cwd=elsewhere, env=environment)


def test_the_folder_loads_without_mlflow(build: Callable[..., ModelVersion]) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = build().path
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert AutoTokenizer.from_pretrained(folder)("ab").input_ids


def test_processes_build_at_once_from_nothing(workspace: Workspace, classifier: Path, tmp_path: Path) -> None:
    """The database is made once, no version is lost; nothing is printed, left behind or set for others."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom thano_assets.resources.registry import Registry\n"
        "from thano_assets.resources.workspace import Workspace\nregistry = Registry(Workspace(sys.argv[1]))\n"
        "for step in range(2):\n    with registry.build('m') as run:\n"
        "        run.log_metrics({'loss': 1.0}, step)\n"
        "        run.register(Path(sys.argv[2]), labels={'classes': ['a', 'b']}, metrics={'accuracy': 1.0})\n"
        "import mlflow\nassert not mlflow.active_run() and not mlflow.is_tracking_uri_set()"
    )
    here = tmp_path / "here"
    here.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(workspace.root), str(classifier)],
            cwd=here,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    assert [(process.communicate()[0], process.returncode) for process in running] == [("", 0), ("", 0)]
    assert list(here.iterdir()) == [], "neither mlruns nor mlflow.db in the current folder"
    versions = Registry(workspace).versions("m")
    assert [one.version for one in versions] == [1, 2, 3, 4]
    assert all((one.path / "model.safetensors").is_file() for one in versions)
    assert [one.aliases for one in versions].count(("champion",)) == 1


def test_figures_are_readable_while_training_goes_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thano_assets.resources import mlflow_run

    monkeypatch.setattr(mlflow_run, "_FLUSH_SECONDS", 0.2)
    with registry.build("m") as run:
        run.log_metrics({"loss": 0.5, "rows_per_second": 10, "note": "x"}, 1)  # type: ignore[dict-item]  # left out
        assert registry.client.get_metric_history(run.run_id, "loss") == []
        time.sleep(0.25)
        run.log_metrics({"loss": 0.25}, 2)
        assert [metric.value for metric in registry.client.get_metric_history(run.run_id, "loss")] == [
            0.5,
            0.25,
        ]


def test_system_metrics(
    registry: Registry, build: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with registry.build("m") as run:
        time.sleep(0.6)
    metrics = registry.client.get_run(run.run_id).data.metrics
    assert "system/cpu_utilization_percentage" in metrics
    settings = replace(registry.settings, mlflow=replace(registry.settings.mlflow, system_metrics=False))
    with Registry(registry.workspace, settings).build("m") as run:
        time.sleep(0.3)
    assert not any("system/" in key for key in registry.client.get_run(run.run_id).data.metrics)


def test_another_tracking_server(
    workspace: Workspace, mlflow_database: Path, classifier: Path, tmp_path: Path
) -> None:
    """``tracking_uri`` in the settings: everything goes through MLflow's client."""
    shutil.copy2(mlflow_database, tmp_path / "elsewhere.db")
    workspace.settings_path.write_text(
        f"[mlflow]\ntracking_uri = 'sqlite:///{tmp_path}/elsewhere.db'\n", encoding="utf-8"
    )
    registry = Registry(Workspace(workspace.root))
    assert not registry.is_local
    client = registry.client
    client.create_experiment("m", (tmp_path / "artifacts").as_uri())
    with registry.build("m") as run:
        logged = run._log_model(classifier, tmp_path / "model", dict(LABELS), {}, {})
        client.create_registered_model("m")
        client.create_model_version("m", logged.artifact_location, run.run_id)
        client.set_registered_model_alias("m", "champion", "1")
    found = registry.champion("m")
    assert found is not None
    assert found.classes == ["negative", "positive"]
    assert not registry.database.exists()
