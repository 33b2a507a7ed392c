"""A workspace with a base model small enough to be trained in a second."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from thano_assets.progress import Progress
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.registry import Registry
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session


@pytest.fixture
def small_workspace(tracked_workspace: Workspace, classifier: Path) -> Workspace:
    """A workspace where ``ElectraEn`` is the tiny base, as it would be found in the models folder."""
    return with_small_base(tracked_workspace, classifier)


def with_small_base(workspace: Workspace, classifier: Path) -> Workspace:
    """Put the tiny base into the models folder of ``workspace``."""
    target = workspace.models_cache / "google" / "electra-small-discriminator"
    target.mkdir(parents=True)
    for file in classifier.iterdir():
        (target / file.name).hardlink_to(file)
    return workspace


def made_once(root: Path, mlflow_database: Path, classifier: Path) -> Workspace:
    """A new workspace at ``root`` with the tiny base, for a module's tests to copy."""
    workspace = with_small_base(open_workspace(root), classifier)
    shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
    return workspace


def copied(root: Path, target: Path) -> Workspace:
    """The workspace at ``root``, copied to ``target``."""
    shutil.copytree(root, target, symlinks=True)
    workspace = open_workspace(target)
    _ = Registry(workspace).client  # its paths are this copy's from now on
    return workspace


class Recorder(Progress):
    """Remembers what was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def told() -> Recorder:
    return Recorder()


@pytest.fixture
def session(small_workspace: Workspace, told: Recorder) -> Iterator[Session]:
    with Session(small_workspace, progress=told) as session:
        yield session


def write_rows(workspace: Workspace, name: str, rows: list[dict[str, object]]) -> None:
    """Put a JSON lines file into the data folder."""
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    (workspace.data / name).write_text(text, encoding="utf-8")


def traces(session: Session) -> dict[str, object]:
    """Everything that a failed statement must leave as it was: tables, catalog and registry."""
    registry = session._runtime.registry
    return {
        "tables": [(table.name, table.rows) for table in session._runtime.warehouse.tables()],
        "catalog": [(entry.kind, entry.name, entry.text) for entry in session.catalog.entries()],
        "models": {
            name: [(v.version, tuple(v.aliases)) for v in registry.versions(name)]
            for name in registry.models()
        },
    }
