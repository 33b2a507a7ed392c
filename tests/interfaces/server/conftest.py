"""A real server in a process of its own, and the public client."""

from __future__ import annotations

import importlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import requests

from tests.conftest import small_classifier
from tests.learning.conftest import make_tiny
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace


@dataclass
class Running:
    """A server that answers."""

    url: str
    workspace: Workspace
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    def ask(self, method: str, path: str, **more) -> requests.Response:
        return requests.request(method, f"{self.api}{path}", timeout=60, **more)

    def run(self, statement: str, **more):
        """A statement that must work; its rows."""
        found = self.ask("POST", "/query/", json={"query_string": statement}, **more).json()
        assert "error" not in found, found
        assert found["error_result"] is None, found["error_result"]
        return (found["records"] or {}).get("data")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


@contextmanager
def serving(workspace: Workspace, *options: str, host: str = "127.0.0.1") -> Iterator[Running]:
    """``thano serve`` on a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = workspace.root / f"serve-{port}.log"
    before = ["-w", str(workspace.root), *options]
    command = [sys.executable, "-m", "thano_assets.interfaces.cli", *before, "serve"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--host", host], stdout=out, stderr=subprocess.STDOUT
        )
    running = Running(f"http://127.0.0.1:{port}", workspace, process, log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{running.url}/healthz", timeout=5).ok:
                    break
            except requests.ConnectionError:
                pass
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        for each in psutil.process_iter(["cmdline"]):  # runs outlive their server
            words = each.info["cmdline"] or []
            if str(workspace.root) in words and "thano_assets.interfaces.server.worker" in words:
                each.kill()


@pytest.fixture(scope="session")
def _models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model to train, and a tiny classifier."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny(folder / "tiny")
    small_classifier(folder / "letters")
    return folder


@pytest.fixture(scope="session")
def make_server_workspace(
    tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path, _models: Path
) -> Callable[[], Workspace]:
    """Makes workspaces in which BUILD MODEL … USING "tiny" trains in a moment."""

    def make() -> Workspace:
        workspace = open_workspace(tmp_path_factory.mktemp("served") / "workspace")
        shutil.copy2(mlflow_database, workspace.mlflow / "mlflow.db")
        workspace.models_cache.mkdir(exist_ok=True)
        shutil.copytree(_models / "tiny", workspace.models_cache / "tiny")
        shutil.copytree(_models / "letters", workspace.data / "letters")
        return workspace

    return make


@pytest.fixture(scope="module")
def server(make_server_workspace: Callable[[], Workspace]) -> Iterator[Running]:
    """A server that asks nobody for a token."""
    with serving(make_server_workspace()) as running:
        yield running


@pytest.fixture(scope="session")
def public_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The public client, as pip installs it; in a folder of its own, for its name is that of our extension."""
    target = tmp_path_factory.mktemp("client")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target)]
    found = subprocess.run([*command, "thanosql==1.0.11"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"the public client could not be installed: {found.stderr.strip()[-200:]}")
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "thanosql"}
    sys.path.insert(0, str(target))
    try:
        yield importlib.import_module("thanosql")
    finally:
        sys.path.remove(str(target))
        for name in [name for name in sys.modules if name.split(".")[0] == "thanosql"]:
            del sys.modules[name]
        sys.modules.update(ours)


@pytest.fixture
def client(server: Running, public_client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The client at the server's address."""
    monkeypatch.chdir(tmp_path)  # it writes what it downloads into the current folder
    return public_client.ThanoSQL(api_token="none", engine_url=server.url)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A fresh workspace."""
    return open_workspace(tmp_path / "workspace")
