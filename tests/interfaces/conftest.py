"""A workspace of its own for each module, and the command line as a person's shell would start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thano_assets.resources.environments import open_workspace

Thano = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an empty workspace, shared by a module's tests."""

    return open_workspace(tmp_path_factory.mktemp("interfaces") / "workspace").root


def environment(workspace: Path) -> dict[str, str]:
    """The caller's environment without anything that would steer a child's terminal or workspace."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "DAGSTER_HOME")
    }
    return {**kept, "THANO_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def thano(workspace: Path) -> Thano:
    """Run ``thano`` with arguments, and variables of the environment, in a process; ``input`` is its standard input."""

    def run(
        *arguments: str, input: str | None = None, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "thano_assets.interfaces.cli", *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            encoding="utf-8",
            env=environment(workspace) | variables,
            cwd=cwd or workspace.parent,
            timeout=120,
        )

    return run
