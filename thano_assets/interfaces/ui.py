"""``thano ui``: Dagster's web page and daemon and MLflow's web page for one workspace, as one command.

A lock file that the kernel frees tells a second ``thano ui`` that one is running, ``dagster/ui.json``
in the workspace says where. How the processes are started and stopped is in
:mod:`thano_assets.interfaces.processes`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import urllib.parse
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.errors import WorkspaceError
from thano_assets.interfaces.processes import HOST, START_SECONDS, Group, Service, is_free
from thano_assets.resources.dagster_home import update_dagster_yaml, update_workspace_yaml
from thano_assets.resources.environments import registry_of

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

_MLFLOW_HOSTS = "localhost,localhost:*,127.0.0.1,127.0.0.1:*,[::1],[[]::1]:*"
LOCATION = "thano_assets"


def serve(
    workspace: Workspace,
    *,
    port: int | None = None,
    mlflow_port: int | None = None,
    browser: bool = True,
    verbose: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Run the pages until Ctrl-C, SIGTERM or the death of one of them; returns the exit code.

    Args:
        workspace: whose runs, assets and models are shown.
        port: Dagster's port; ``None`` takes that of the workspace's settings (3000 unless changed) or, where
            it is taken, any free one.
        mlflow_port: MLflow's port; likewise, 5000 unless changed. A workspace whose settings name another
            tracking server gets no MLflow of its own; that server's address is shown.
        browser: open Dagster's page when it answers and a display is there.
        verbose: copy the children's logs to standard error.
        say: receives each line meant for the person.

    Raises:
        WorkspaceError: a port that was asked for is taken.
    """
    home = Path(workspace.dagster_home)
    with _only_one(home / "ui.lock") as first:
        if not first:
            say(_already_running(home / "ui.json"))
            return 0
        settings = workspace.settings
        dagster_url = f"http://{HOST}:{choose_port(port, _usual_port(settings.dagster.url, 3000), '--port')}"
        if settings.mlflow.tracking_uri is None:
            usual = _usual_port(settings.mlflow.url, 5000)
            mlflow_url = f"http://{HOST}:{choose_port(mlflow_port, usual, '--mlflow-port')}"
        else:
            mlflow_url = settings.mlflow.url
        say("Starting Dagster and MLflow…")
        services = _services(workspace, dagster_url, mlflow_url)
        with Group(services) as group:
            try:
                return _attend(group, home / "ui.json", dagster_url, mlflow_url, browser, verbose, say)
            except KeyboardInterrupt:
                say("Stopping…")
                return 0
            finally:
                (home / "ui.json").unlink(missing_ok=True)
                group.stop()
                if verbose:
                    group.follow()


def _attend(
    group: Group,
    told_in: Path,
    dagster_url: str,
    mlflow_url: str,
    browser: bool,
    verbose: bool,
    say: Callable[[str], None],
) -> int:
    """Start everything, wait until the pages answer, say where they are, and watch."""
    # The web server makes Dagster's databases where they are not there yet. Two processes that do so at once
    # get in each other's way, so the daemon then waits for it.
    failed = group.start(first_alone=not _has_databases(told_in.parent), verbose=verbose)
    if failed is not None:
        say(_death_notice(failed))
        return 1
    address = {"dagster": dagster_url, "mlflow": mlflow_url, "location": LOCATION, "pid": os.getpid()}
    beside = told_in.with_name(told_in.name + ".part")
    beside.write_text(json.dumps(address, indent=1), encoding="utf-8")
    beside.replace(told_in)
    say(f"Dagster  {dagster_url}   assets, runs, schedules")
    say(f"MLflow   {mlflow_url}   models, metrics, figures")
    say("Ctrl-C stops both.")
    sys.stdout.flush()
    if browser:
        _open_browser(dagster_url)
    while True:
        dead = group.dead()
        if verbose:
            group.follow()
        if dead is not None:
            say(_death_notice(dead))
            return 1
        time.sleep(0.5)


def _services(workspace: Workspace, dagster_url: str, mlflow_url: str) -> list[Service]:
    """Dagster's web server, its daemon and MLflow's server; the web server comes first."""
    home = Path(workspace.dagster_home)
    root = Path(workspace.root)
    logs = home / "ui-logs"
    logs.mkdir(parents=True, exist_ok=True)
    target = update_workspace_yaml(home)
    update_dagster_yaml(home, workspace.settings.queue)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "THANO_WORKSPACE": str(root),
        "THANO_DAGSTER_URL": dagster_url,
        "THANO_MLFLOW_URL": mlflow_url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # One worker and no job queue: a fifth of the memory, half of the start.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # A file called like a module must not be imported from the folder that the command was given in.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
    dagster_port = dagster_url.rsplit(":", 1)[1]
    hosts = workspace.settings.dagster.hosts
    python = sys.executable
    web = Service(
        "dagster",
        [python, "-m", f"{LOCATION}.interfaces.dagster_page", str(target), dagster_port, *hosts],
        environment,
        root,
        logs / "dagster-webserver.log",
        url=dagster_url,
        probe=f"{dagster_url}/server_info",
    )
    daemon = Service(
        "daemon",
        [python, "-m", "dagster._daemon", "run", "-w", str(target)],
        environment,
        root,
        logs / "dagster-daemon.log",
    )

    registry = registry_of(workspace)
    if not registry.is_local:
        return [web, daemon]
    if not registry.database.exists():
        # The registry makes it so that a session that starts meanwhile waits; MLflow's server would not.
        _ = registry.client
    mlflow_port = mlflow_url.rsplit(":", 1)[1]
    mlflow = Service(
        "mlflow",
        [
            python,
            "-m",
            "mlflow",
            "server",
            *("--backend-store-uri", registry.tracking_uri),
            *("--default-artifact-root", registry.artifacts.as_uri()),
            *("--no-serve-artifacts", "--host", HOST, "--port", mlflow_port, "--workers", "1"),
            *("--app-name", "thano"),  # :mod:`.mlflow_page`
            # Its own list has patterns such as 10.*, which names of the public network match as well.
            *("--allowed-hosts", _MLFLOW_HOSTS),
        ],
        environment,
        root,
        logs / "mlflow.log",
        url=mlflow_url,
        probe=f"{mlflow_url}/health",
    )
    return [web, daemon, mlflow]


def _usual_port(address: str, otherwise: int) -> int:
    """The port that the settings name, if it is one of this machine."""
    parts = urllib.parse.urlsplit(address)
    return parts.port or otherwise if parts.hostname in (HOST, "localhost") else otherwise


def choose_port(wanted: int | None, usual: int, option: str) -> int:
    """``wanted`` if it is free; without a wish the usual one, or any that is free.

    Raises:
        WorkspaceError: the port that was asked for is taken.
    """
    if wanted is not None:
        if not is_free(wanted):
            raise WorkspaceError(
                f"Port {wanted} is taken by another program.",
                hint=f"Name another one with {option}, or leave it out to get a free one.",
            )
        return wanted
    if is_free(usual):
        return usual
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _has_databases(home: Path) -> bool:
    return all(
        (home / part).is_file()
        for part in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
    )


@contextmanager
def _only_one(path: Path) -> Iterator[bool]:
    """Hold ``path`` locked; yields False where another process has it. The kernel frees it after a kill."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _already_running(told_in: Path) -> str:
    try:
        told = json.loads(told_in.read_text(encoding="utf-8"))
        return (
            "The pages of this workspace are already there (process {pid}):\n"
            "Dagster  {dagster}\nMLflow   {mlflow}".format(**told)
        )
    except (OSError, ValueError, KeyError):
        return "Another `thano ui` is just starting or stopping for this workspace; try again in a moment."


def _death_notice(service: Service) -> str:
    code = service.exit_code
    what = (
        f"did not answer within {START_SECONDS:.0f} s"
        if code is None
        else f"ended by itself (exit code {code})"
    )
    tail = service.tail() or "(it wrote nothing)"
    return f"{service.name} {what}. The last lines of {service.log}:\n{tail}"


def _open_browser(url: str) -> None:
    """Open the page where a person would see it: not without a display, and not in a text browser."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return
    webbrowser.open(url)
