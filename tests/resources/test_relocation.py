"""A workspace that is moved or copied: what it records names the folder that it lies in."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.session.conftest import Recorder, small_workspace  # noqa: F401 - a fixture
from thano_assets.resources.relocation import relocate
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

BUILD = (
    "BUILD MODEL m USING ElectraEn OPTIONS (epochs={}, batch_size=8, baseline=False, overwrite=True) AS "
    "SELECT 'a ' || i AS text, i % 2 AS label FROM range(40) r(i)"
)


def state(folder: Path) -> dict[str, str]:
    """A digest of each file, but for locks."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }


@pytest.fixture
def original(small_workspace: Workspace) -> Workspace:  # noqa: F811
    with Session(small_workspace) as session:
        session.execute(BUILD.format(1))
    return small_workspace


def loaded(workspace: Workspace, name: str) -> list[str]:
    """What a person's own MLflow gives for a text, told only where the database lies."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{workspace.mlflow / 'mlflow.db'}")
    try:
        found = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(["a b"])
    finally:
        mlflow.set_tracking_uri(None)
    return [str(label) for label in found.iloc[:, 0]]


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_building_predicting_and_loading_go_on_at_the_new_place(
    original: Workspace, tmp_path: Path, how: str
) -> None:
    place = tmp_path / "new place" / "workspace"
    place.parent.mkdir()
    if how == "copied":
        shutil.copytree(original.root, place)
        before = state(original.root)
    else:
        shutil.move(original.root, place)
    told = Recorder()
    with Session(place, progress=told) as session:
        assert told.messages == [
            f"The workspace lay in {original.root} before: MLflow's records name {place} now."
        ]
        session.execute(BUILD.format(2))
        assert session.execute("PREDICT USING m AS SELECT 'a b' AS text").row_count == 1
        assert session.execute("LIST MODEL").arrow().column("version").to_pylist() == [2]
        paths = [version.path for version in session._runtime.registry.versions("m")]
    assert all(path.is_relative_to(place) and path.is_dir() for path in paths)
    if how == "copied":
        assert state(original.root) == before
        shutil.rmtree(original.root)
    assert not original.root.exists()
    assert loaded(Workspace(place), "m")
    again = Recorder()
    with Session(place, progress=again):
        assert again.messages == []


def test_versions_that_were_written_to_the_old_folder_are_copied(original: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(original.root, place)
    (version,) = next((place / "mlflow" / "artifacts" / "m" / "models").iterdir()).parent.iterdir()
    shutil.rmtree(version)
    assert relocate(Workspace(place)) == str(original.root)
    assert (version / "artifacts" / "model" / "config.json").is_file()


def test_the_python_that_mlflow_shows_names_the_new_place(original: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    shutil.move(original.root, place)
    with Session(place) as session:
        registry = session._runtime.registry
        (version,) = registry.versions("m")
        found = registry.client.get_model_version("m", "1")
        run = registry.client.get_run(version.run_id)
    assert run.info.run_id == found.run_id
    database = f"sqlite:///{place / 'mlflow' / 'mlflow.db'}"
    for text in (found.description, run.data.tags["mlflow.note.content"]):
        assert f'mlflow.set_tracking_uri("{database}")' in text
        assert str(original.root) not in text


def test_nothing_happens_at_the_same_place_or_where_there_is_no_database(
    original: Workspace, tmp_path: Path
) -> None:
    before = state(original.root)
    assert relocate(original) is None
    assert relocate(Workspace(tmp_path / "nothing")) is None
    assert state(original.root) == before
