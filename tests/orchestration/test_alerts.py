"""Whoever thano.toml names is told of failed runs, failed checks and versions that were not promoted."""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import pytest

from tests.orchestration.conftest import run_as_daemon
from tests.session.conftest import write_rows
from thano_assets.errors import WorkspaceError
from thano_assets.graph import Graph
from thano_assets.orchestration import alerts
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.settings import AlertSettings
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

ALERT = {
    "kind": "failed run",
    "text": "w: failed run: no such file",
    "reasons": ["no such file"],
    "assets": ["raw/영화"],
    "workspace": "w",
    "url": "http://127.0.0.1:3000/runs/1",
}


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[index,misc]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Hook(BaseHTTPRequestHandler):
    received: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as one message takes."""

    received: ClassVar[list[str]] = []

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line.decode())
                self.received.append("".join(lines))
            elif line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 fine\r\n")


def test_a_webhook_an_address_and_a_command_are_told(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    keep = f"import pathlib, sys; pathlib.Path({str(told)!r}).write_text(sys.stdin.read())"
    _Hook.received.clear()
    _Mail.received.clear()
    with (
        _serving(HTTPServer(("127.0.0.1", 0), _Hook)) as hook,
        _serving(socketserver.TCPServer(("127.0.0.1", 0), _Mail)) as mail,
    ):
        settings = AlertSettings(
            webhook=f"http://127.0.0.1:{hook}/",
            email="team@example.com",
            smtp=f"smtp://127.0.0.1:{mail}",
            command=f'{sys.executable} -c "{keep}"',
        )
        alerts.send(ALERT, settings)
    assert _Hook.received == [ALERT]
    assert json.loads(told.read_text()) == ALERT
    (message,) = _Mail.received
    assert "To: team@example.com" in message
    assert "http://127.0.0.1:3000/runs/1" in message


def test_one_that_cannot_be_told_keeps_nobody_else_from_it() -> None:
    _Hook.received.clear()
    with _serving(HTTPServer(("127.0.0.1", 0), _Hook)) as hook:
        settings = AlertSettings(webhook=f"http://127.0.0.1:{hook}/", command="/no/such/command")
        with pytest.raises(WorkspaceError, match=r"command: FileNotFoundError"):
            alerts.send(ALERT, settings)
    assert _Hook.received == [ALERT]


def test_what_is_told_of_a_run(workspace: Workspace) -> None:
    write_rows(workspace, "rows.jsonl", [{"n": 1}])
    with Session(workspace) as session:
        session.execute("COPY t FROM 'rows.jsonl'; EXPECT n < 5 ON t")
    instance = dg.DagsterInstance.from_config(str(workspace.dagster_home))
    assert (
        alerts.describe(instance, run_as_daemon(workspace, instance, "raw/t", "tables/t"), workspace) is None
    )

    write_rows(workspace, "rows.jsonl", [{"n": 9}])
    broken = alerts.describe(instance, run_as_daemon(workspace, instance, "raw/t", "tables/t"), workspace)
    assert broken is not None
    assert (broken["kind"], broken["assets"]) == ("failed check", ["tables/t"])
    assert broken["reasons"] == ["1 of 1 row of t breaks EXPECT n < 5."]

    (workspace.data / "rows.jsonl").write_text('{"n": \n')
    run = run_as_daemon(workspace, instance, "raw/t", "tables/t")
    failed = alerts.describe(instance, run, workspace)
    assert failed is not None
    assert failed["kind"] == "failed run"
    assert failed["reasons"][0].startswith("data-file: 'rows.jsonl' cannot be read")
    assert failed["url"].endswith(f"/runs/{run.run_id}")


def test_a_version_that_is_not_promoted_is_told_of(small_workspace: Workspace) -> None:
    rows = [{"review": f"{'ab'[n % 2]} {'c' * n}", "label": n % 2} for n in range(40)]
    write_rows(small_workspace, "rows.jsonl", rows)
    with Session(small_workspace) as session:
        session.execute("COPY rows FROM 'rows.jsonl'")
        session.execute(
            "BUILD MODEL m USING ElectraEn OPTIONS (epochs=1, batch_size=4, baseline=False, eval_fraction=0.5, "
            "promote_if='loss <= 0') AS SELECT review AS text, label FROM rows"
        )
        write_rows(small_workspace, "rows.jsonl", [{**row, "label": 1 - row["label"]} for row in rows])
        session.execute("COPY rows OPTIONS (overwrite=True) FROM 'rows.jsonl'")
    instance = dg.DagsterInstance.from_config(str(small_workspace.dagster_home))
    run = run_as_daemon(small_workspace, instance, "training_sets/m", "models/m")
    assert run.is_success  # the version that answered before still does: nothing is broken
    alert = alerts.describe(instance, run, small_workspace)
    assert alert is not None
    assert (alert["kind"], alert["assets"]) == ("not promoted", ["models/m"])
    assert alert["reasons"][0].startswith("Version 2 is not promoted: ")


def test_without_anybody_to_tell_there_is_no_sensor(workspace: Workspace) -> None:
    graph = Graph({})
    assert alerts.sensors(graph, workspace) == []
    workspace.settings_path.write_text("[alerts]\ncommand = 'true'\n", encoding="utf-8")
    names = [sensor.name for sensor in alerts.sensors(graph, open_workspace(workspace.root))]
    assert names == ["alert_on_failure", "alert_on_checks"]
