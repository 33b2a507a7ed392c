"""Settings of a workspace: what ``thano.toml`` says, and what it means where it says nothing."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import WorkspaceError, did_you_mean

SETTINGS_TEXT = """\
# Settings of this workspace. Every line below shows a default; take the '#' away to change one.

[files]
# Folders besides data/ that COPY may read; relative ones start at this file.
# allowed = ["../more-data"]

[statements]
# Longest text of statements that is read at once, in characters.
# max_length = 1000000
# Results of PREDICT, EVALUATE, EXPLAIN, CONVERT and SEARCH without CREATE TABLE that stay as tables.
# unnamed_results = 20

[warehouse]
# Most memory DuckDB takes before it spills to disk, and how many processor cores it uses.
# memory_limit = "4GB"        (default: 80 % of the machine's memory)
# threads = 4                 (default: all cores)

[mlflow]
# Where runs and models are recorded (also: MLFLOW_TRACKING_URI); the default is SQLite under mlflow/.
# tracking_uri = "http://mlflow.example.com:5000"
# Address of the MLflow UI that links in the Dagster UI point to (also: THANO_MLFLOW_URL).
# url = "http://127.0.0.1:5000"
# Processor, memory and disk use of a training run, sampled while it trains (needs psutil).
# system_metrics = true

[dagster]
# Address of the Dagster UI that links in MLflow point to (also: THANO_DAGSTER_URL).
# url = "http://127.0.0.1:3000"
# The time zone of OPTIONS (schedule='…').
# timezone = "UTC"
# Names besides localhost by which a browser may reach the Dagster UI, for example through a tunnel.
# hosts = ["dagster.example.com"]

[queue]
# Runs that Dagster launches: how many at a time; how many of them train a model, and how many predict,
# evaluate, explain or embed.
# runs = 4
# training = 1
# inference = 2
# How often a tick of a schedule that fails is tried again.
# max_tick_retries = 3
# Seconds until a launched run that has not started counts as failed; it is found within 5 s more.
# start_timeout_seconds = 50

[server]
# What `thano serve` takes: bytes of a request, rows of an answer, seconds of a statement, runs at a time.
# max_body_mb = 64
# max_rows = 100000
# max_seconds = 300
# max_runs = 2
# Names besides localhost by which the server may be reached.
# hosts = ["thano.example.com"]
# Whether statements may fetch base models from the Hugging Face hub.
# hub = false

[alerts]
# Who is told when a run that Dagster launched fails, a check fails or a version is not promoted.
# An address that JSON is posted to; its field "text" is what Slack, Mattermost and Teams show.
# webhook = "https://hooks.example.com/services/..."
# An address of e-mail, the server that takes it, and the sender.
# email = "team@example.com"
# smtp = "smtp://user:password@mail.example.com:587"        (default: smtp://localhost:25)
# sender = "thano@example.com"        (default: email)
# A command line that is given the same JSON on its standard input.
# command = "notify-send Thano"
"""


@dataclass(frozen=True)
class FileSettings:
    """``[files]``: folders besides ``data/`` that COPY may read, as absolute paths."""

    allowed: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StatementSettings:
    """``[statements]``: the longest text that is read at once, in characters; results without a name.

    ``unnamed_results`` is how many results of a bare PREDICT, EVALUATE and their like stay as tables.
    """

    max_length: int = 1_000_000
    unnamed_results: int = 20


@dataclass(frozen=True)
class WarehouseSettings:
    """``[warehouse]``: DuckDB's ``memory_limit`` (such as ``'4GB'``) and ``threads``; ``None``: its own."""

    memory_limit: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class MlflowSettings:
    """``[mlflow]``: another tracking server than the workspace's own, the UI's address, system metrics."""

    tracking_uri: str | None = field(default=None, repr=False)  # may hold a password
    url: str = "http://127.0.0.1:5000"
    system_metrics: bool = True


@dataclass(frozen=True)
class DagsterSettings:
    """``[dagster]``: the UI's address, the time zone of schedules, and hosts that the UI answers for."""

    url: str = "http://127.0.0.1:3000"
    timezone: str = "UTC"
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueueSettings:
    """``[queue]``: how many runs Dagster launches at a time, by kind, and when it gives up."""

    runs: int = 4
    training: int = 1
    inference: int = 2
    max_tick_retries: int = 3
    start_timeout_seconds: int = 50


@dataclass(frozen=True)
class ServerSettings:
    """``[server]``: limits of ``thano serve`` and the names that it answers to.

    ``max_body_mb`` is millions of bytes of a request; ``max_rows`` rows of one answer; ``max_seconds`` how
    long a statement may hold a request; ``max_runs`` how many runs go on at a time.
    """

    max_body_mb: int = 64
    max_rows: int = 100_000
    max_seconds: int = 300
    max_runs: int = 2
    hosts: tuple[str, ...] = ()
    hub: bool = False


@dataclass(frozen=True)
class AlertSettings:
    """``[alerts]``: who is told of failed runs, failed checks and versions that are not promoted."""

    webhook: str | None = field(default=None, repr=False)  # whoever has it can post
    email: str | None = None
    smtp: str = field(default="smtp://localhost:25", repr=False)  # may hold a password
    sender: str | None = None
    command: str | None = None

    @property
    def any(self) -> bool:
        """Whether anybody is told."""
        return bool(self.webhook or self.email or self.command)


@dataclass(frozen=True)
class Settings:
    """What ``thano.toml`` says, with the environment's say on addresses."""

    files: FileSettings = field(default_factory=FileSettings)
    statements: StatementSettings = field(default_factory=StatementSettings)
    warehouse: WarehouseSettings = field(default_factory=WarehouseSettings)
    mlflow: MlflowSettings = field(default_factory=MlflowSettings)
    dagster: DagsterSettings = field(default_factory=DagsterSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)


_TABLES: dict[str, type] = {
    "files": FileSettings,
    "statements": StatementSettings,
    "warehouse": WarehouseSettings,
    "mlflow": MlflowSettings,
    "dagster": DagsterSettings,
    "queue": QueueSettings,
    "server": ServerSettings,
    "alerts": AlertSettings,
}
_COUNT = (int, "a whole number from 1 up")
_TYPES: dict[str, tuple[type, str]] = {
    "allowed": (list, "a list of folders"),
    "hosts": (list, "a list of host names"),
    "max_length": _COUNT,
    "unnamed_results": _COUNT,
    "memory_limit": (str, "a text such as '4GB'"),
    "threads": _COUNT,
    "tracking_uri": (str, "an address in quotes"),
    "url": (str, "an address in quotes"),
    "runs": _COUNT,
    "training": _COUNT,
    "inference": _COUNT,
    "max_tick_retries": _COUNT,
    "max_body_mb": _COUNT,
    "max_rows": _COUNT,
    "max_seconds": _COUNT,
    "max_runs": _COUNT,
    "hub": (bool, "true or false"),
    "start_timeout_seconds": _COUNT,
    "webhook": (str, "an address in quotes"),
    "email": (str, "an address in quotes"),
    "smtp": (str, "an address such as 'smtp://mail.example.com:587'"),
    "sender": (str, "an address in quotes"),
    "command": (str, "a command line in quotes"),
    "system_metrics": (bool, "true or false"),
    "timezone": (str, "the name of a time zone such as 'Asia/Seoul'"),
}
_ADDRESSES = {"mlflow": "THANO_MLFLOW_URL", "dagster": "THANO_DAGSTER_URL"}


def read_settings(path: Path) -> Settings:
    """Parse ``thano.toml``; a file that does not exist gives the defaults.

    Raises:
        WorkspaceError: no TOML, an unknown table or key, or a value of the wrong type; ``line`` is set.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError as error:
        raise WorkspaceError(
            f"{path} is not UTF-8 text.", hint="`thano doctor --repair` puts it aside and takes the defaults."
        ) from error
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)", str(error))
        line, column = (int(place[1]), int(place[2])) if place else (text.count("\n") + 1, 1)
        reason = str(error)[: place.start()] if place else str(error).replace(" (at end of document)", "")
        raise _broken(path, text, f"line {line}: {reason}", line, column) from error

    read: dict[str, Any] = {}
    for name, table in content.items():
        if name not in _TABLES or not isinstance(table, dict):
            hint = did_you_mean(name, list(_TABLES), "table")
            raise _broken(path, text, f"[{name}] is not a table of it", _line_of(text, name), hint=hint)
        read[name] = _TABLES[name](**_checked(path, text, name, table))
    for name, variable in _ADDRESSES.items():
        if address := os.environ.get(variable):
            known = read.get(name, _TABLES[name]())
            read[name] = type(known)(**{**_as_dict(known), "url": address})
    settings = Settings(**read)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if settings.mlflow.tracking_uri is None and server and not _is_own_server(server, path.parent):
        settings = replace(settings, mlflow=replace(settings.mlflow, tracking_uri=server))
    return settings


def _is_own_server(address: str, root: Path) -> bool:
    """Whether an address of MLflow means the workspace's own database, or the page that shows it."""
    if address == f"sqlite:///{root.resolve() / 'mlflow' / 'mlflow.db'}":
        return True
    try:
        shown = json.loads((root / "dagster" / "ui.json").read_text(encoding="utf-8"))
        return bool(shown["mlflow"].rstrip("/") == address.rstrip("/"))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _checked(path: Path, text: str, name: str, table: dict[str, Any]) -> dict[str, Any]:
    known = [one.name for one in fields(_TABLES[name])]
    values: dict[str, Any] = {}
    for key, value in table.items():
        line = _line_of(text, key, after=name)
        if key not in known:
            hint = did_you_mean(key, known, "setting")
            raise _broken(path, text, f"'{key}' is not a setting of [{name}]", line, hint=hint)
        kind, description = _TYPES[key]
        right = isinstance(value, kind)
        if isinstance(value, int) and kind is int:
            right = value > 0 and not isinstance(value, bool)
        if key == "timezone" and right:
            right = _is_timezone(value)
        if isinstance(value, list) and right:
            right = all(isinstance(one, str) for one in value)
        if not right:
            shown = without_password(repr(value))
            raise _broken(path, text, f"'{key}' in [{name}] must be {description}, not {shown}", line)
        values[key] = tuple(value) if isinstance(value, list) else value
    if "allowed" in values:
        base = path.parent
        values["allowed"] = tuple((base / Path(one).expanduser()).resolve() for one in values["allowed"])
    return values


def without_password(text: str) -> str:
    """``text`` without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^/@\s'\"]+@", "", text)


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True


def _as_dict(settings: Any) -> dict[str, Any]:
    return {one.name: getattr(settings, one.name) for one in fields(settings)}


def _line_of(text: str, key: str, after: str | None = None) -> int:
    """1-based line where ``key`` is set (or ``[key]`` begins), below the table ``[after]`` if given."""
    begun = after is None
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if after is not None and bare.replace(" ", "") == f"[{after}]":
            begun = True
        elif begun and re.match(rf"\[?\s*[\"']?{re.escape(key)}[\"']?\s*[=\].]", bare):
            return number
    return 1


def _broken(
    path: Path, text: str, what: str, line: int, column: int = 1, hint: str | None = None
) -> WorkspaceError:
    return WorkspaceError(
        f"{path} is not right: {what}.",
        line=line,
        column=column,
        text=without_password(text),
        hint=hint or f"Correct line {line} or delete it to use the default.",
    )
