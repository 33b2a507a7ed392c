"""The pages: started together, found again, stopped without a process or a taken port left behind."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interfaces.conftest import environment
from thano_assets.errors import WorkspaceError
from thano_assets.interfaces import processes, ui
from thano_assets.interfaces.processes import HOST, Group, Service, is_free, responds
from thano_assets.orchestration.running_ui import running
from thano_assets.resources.environments import open_workspace

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def group_lives(group: int) -> bool:
    """Whether a process of the group is left that is not just waiting to be reaped."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(line.split()[0] == str(group) and "Z" not in line.split()[1] for line in found.splitlines())


def wait_until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


# ---------------------------------------------------------------- the real thing, once


@pytest.fixture(scope="module")
def pages(workspace: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """``thano ui`` in the background and what it wrote to ``ui.json``; stopped by Ctrl-C at the end."""
    ports = free_port(), free_port()
    arguments = ["ui", "--no-browser", "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    child = subprocess.Popen(
        [sys.executable, "-m", "thano_assets.interfaces.cli", *arguments],
        env=environment(workspace),
        cwd=workspace.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    told = workspace / "dagster" / "ui.json"
    try:
        wait_until(lambda: told.exists() or child.poll() is not None, 150)
        assert child.poll() is None, child.stdout.read() if child.stdout else ""
        yield child, json.loads(told.read_text())
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=40)
        finally:
            child.kill()
    assert child.returncode == 0
    assert not told.exists()
    for port in ports:
        assert is_free(port)
    assert not [line for line in _commands() if str(workspace) in line]


def _commands() -> list[str]:
    return subprocess.run(
        ["ps", "-eo", "args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_the_pages_answer_where_they_are_said_to(pages: tuple[object, dict[str, object]]) -> None:
    child, told = pages
    assert told["pid"] == getattr(child, "pid", None)
    assert responds(f"{told['dagster']}/server_info")
    assert responds(f"{told['mlflow']}/health")
    query = json.dumps({"query": "{workspaceOrError{... on Workspace{locationEntries{name loadStatus}}}}"})
    request = urllib.request.Request(
        f"{told['dagster']}/graphql", query.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    assert entries == [{"name": "thano_assets", "loadStatus": "LOADED"}]


def status(address: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(
        address, data, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_foreign_pages_and_names_get_nothing(pages: tuple[object, dict[str, object]]) -> None:
    _, told = pages
    dagster, mlflow = str(told["dagster"]), str(told["mlflow"])
    query = b'{"query": "{version}"}'
    assert status(f"{dagster}/graphql", query, Content_Type="application/json") == 200
    assert status(f"{dagster}/graphql", query, Content_Type="application/json", Origin=dagster) == 200
    assert status(f"{dagster}/graphql", query, Content_Type="application/json", Origin="http://a.b") == 403
    assert status(f"{dagster}/graphql", query, Content_Type="text/plain") == 415
    assert status(f"{dagster}/graphql?query={{version}}") == 405
    assert status(f"{dagster}/", Host="evil.example") == 403
    assert status(f"{dagster}/") == 200
    assert status(f"{mlflow}/", Host="evil.example") == 403
    assert status(f"{mlflow}/", Host="10.evil.example") == 403
    assert status(f"{mlflow}/") == 200


def test_a_first_visit_to_mlflow_finds_trainings(pages: tuple[object, dict[str, object]]) -> None:
    _, told = pages
    with urllib.request.urlopen(f"{told['mlflow']}/", timeout=60) as answer:
        page = answer.read().decode()
        assert answer.headers["Cache-Control"] == "no-store"
    assert page.startswith(
        '<!doctype html><html lang="en"><head><script>try{for(const[k,v]of Object.entries({'
    )
    choices = json.loads(page.partition("Object.entries(")[2].partition("))if(localStorage")[0])
    assert choices["mlflow.workflowType_v1"] == '"machine_learning"'
    columns = json.loads(choices['MLflowLocalStorage-1.1-ExperimentPage-["0"]-ReactComponentState'])
    assert columns["selectedColumns"][0] == "metrics.`accuracy`"
    # The keys are those of the page that is served: without them its programs would not look for the choices.
    folder = Path(importlib.util.find_spec("mlflow").origin).parent / "server/js/build/static/js"  # type: ignore[union-attr,arg-type]
    programs = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.js"))
    for word in ("mlflow.workflowType", "mlflow.assistant.fab.autoOpenedOnFirstLoad", "selectedColumns"):
        assert word in programs
    # Links to Dagster's runs follow its port.
    run = "464e55c7-2d80-47eb-844b-f9bb52577443"
    with urllib.request.urlopen(f"{told['mlflow']}/thano/runs/{run}", timeout=60) as answer:
        assert answer.url == f"{told['dagster']}/runs/{run}"
    assert status(f"{told['mlflow']}/thano/runs/evil.example") == 404


def test_a_second_one_says_where_the_first_is(
    pages: tuple[object, dict[str, object]], workspace: Path
) -> None:
    _, told = pages
    done = subprocess.run(
        [sys.executable, "-m", "thano_assets.interfaces.cli", "ui", "--no-browser"],
        env=environment(workspace),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert str(told["dagster"]) in done.stdout
    assert str(told["mlflow"]) in done.stdout
    from thano_assets.resources.workspace import Workspace

    assert running(Workspace(workspace)) == told


# ---------------------------------------------------------------- its parts, with small servers

SERVER = (
    "import http.server, subprocess, sys\n"
    "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print('serving', flush=True)\n"
    f"http.server.HTTPServer(('{HOST}', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)"
    ".serve_forever()\n"
)
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER


def service(name: str, code: str, folder: Path) -> Service:
    port = free_port()
    command = [sys.executable, "-c", code, str(port)]
    url = f"http://{HOST}:{port}"
    return Service(name, command, dict(os.environ), folder, folder / f"{name}.log", url=url, probe=url)


def pids(group: Group) -> list[int]:
    return [one.process.pid for one in group.services if one.process is not None]


def test_stopping_reaches_grandchildren_and_insists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 1.0)
    with Group([service("willing", SERVER, tmp_path), service("stubborn", STUBBORN, tmp_path)]) as group:
        assert group.start(first_alone=True, verbose=False) is None
        groups = pids(group)
        assert all(group_lives(number) for number in groups)
    assert not any(group_lives(number) for number in groups)


def test_a_service_that_dies_is_named_with_its_last_words(tmp_path: Path) -> None:
    failing = service("failing", "print('no such database', flush=True); raise SystemExit(3)", tmp_path)
    with Group([service("fine", SERVER, tmp_path), failing]) as group:
        assert group.start(first_alone=False, verbose=False) is failing
        notice = ui._death_notice(failing)
    assert "failing ended by itself (exit code 3)" in notice
    assert notice.endswith("no such database")


def test_killing_the_command_outright_stops_the_servers_too(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.interfaces.test_ui import SERVER, pids, service\n"
        "from thano_assets.interfaces.processes import Group\n"
        "with Group([service('one', SERVER, Path(sys.argv[1]))]) as group:\n"
        "    group.start(first_alone=False, verbose=False)\n"
        "    print(*pids(group), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        groups = [int(number) for number in child.stdout.readline().split()]
        try:
            assert groups
            assert group_lives(groups[0])
        finally:
            child.kill()
    wait_until(lambda: not group_lives(groups[0]))


def test_logs_are_followed_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = service("one", SERVER, tmp_path)
    one.log.write_bytes(b"first\nsecond, not yet wh")
    one.follow(sys.stdout)
    with one.log.open("ab") as log:
        log.write(b"ole\n")
    one.follow(sys.stdout)
    assert capsys.readouterr().out == "one | first\none | second, not yet whole\n"


def test_ports() -> None:
    with contextlib.closing(socket.create_server((HOST, 0))) as taken:
        port = int(taken.getsockname()[1])
        with pytest.raises(WorkspaceError, match=f"Port {port} is taken"):
            ui.choose_port(port, 3000, "--port")
        other = ui.choose_port(None, port, "--port")
        assert other != port
        assert is_free(other)
    assert ui.choose_port(port, 3000, "--port") == port
    assert ui._usual_port("http://localhost:3100", 3000) == 3100
    assert ui._usual_port("https://dagster.example.com:3100", 3000) == 3000


def test_an_address_whose_writer_is_gone_is_not_believed(tmp_path: Path) -> None:

    workspace = open_workspace(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    (workspace.dagster_home / "ui.json").write_text(json.dumps({"dagster": "x", "pid": gone.pid}))
    assert running(workspace) is None
    (workspace.dagster_home / "ui.json").write_text("{")
    assert running(workspace) is None
