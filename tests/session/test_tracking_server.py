"""Models kept by a real MLflow server, which serves their files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.session.conftest import Recorder, write_rows
from thano_assets.errors import ThanoError
from thano_assets.interfaces.processes import responds
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

BUILD = (
    "BUILD MODEL m USING ElectraEn OPTIONS (epochs=1, batch_size=4, baseline=False, overwrite=True, seed={}) "
    "AS SELECT review AS text, label FROM rows"
)
_PATIENCE = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a database and artifacts of its own."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            cwd=folder,
            env={
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
            },
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + _PATIENCE
        while not responds(f"{address}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def remote(
    small_workspace: Workspace, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """A session of a workspace whose models the server keeps; nothing may be written where it runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (small_workspace.mlflow / "mlflow.db").unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    write_rows(
        small_workspace, "rows.jsonl", [{"review": "ab"[n % 2] * 4, "label": n % 2} for n in range(20)]
    )
    with Session(open_workspace(small_workspace.root), progress=Recorder()) as session:
        session.execute("COPY rows FROM 'rows.jsonl'")
        yield session


def test_a_model_is_built_listed_promoted_loaded_and_deleted(
    remote: Session, server: str, tmp_path: Path, small_workspace: Workspace
) -> None:
    for seed in (1, 2):
        remote.execute(BUILD.format(seed))
    listed = remote.execute("LIST MODEL").arrow().to_pylist()
    assert [row["name"] for row in listed] == ["m"]
    predicted = remote.execute("PREDICT USING m AS SELECT 'aaaa' AS text")
    assert predicted.row_count == 1
    assert remote._runtime.registry.champion("m").version == 2
    remote.execute("PROMOTE MODEL m VERSION 1")
    champion = remote._runtime.registry.champion("m")
    assert champion.version == 1
    assert list((tmp_path / "here").iterdir()) == []
    assert not (small_workspace.mlflow / "mlflow.db").exists()
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import mlflow; print(mlflow.pyfunc.load_model('models:/m@champion').predict(['aaaa']))",
        ],
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    # Another workspace has to fetch the files.
    fresh = open_workspace(tmp_path / "fresh")
    with Session(fresh, progress=Recorder()) as other:
        again = other.execute("PREDICT USING m VERSION 2 AS SELECT 'aaaa' AS text")
        assert again.arrow().to_pylist() == predicted.arrow().to_pylist()
    remote.execute("DELETE MODEL m")
    assert remote.execute("LIST MODEL").row_count == 0


def test_without_the_server_one_sentence_says_so(
    small_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        Session(open_workspace(small_workspace.root), progress=Recorder()) as session,
        pytest.raises(ThanoError, match=r"MLflow cannot use http://127\.0\.0\.1:9"),
    ):
        session.execute("LIST MODEL")
