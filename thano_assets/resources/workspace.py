"""A workspace: the one folder that holds data, statements, tables, models and runs, and its settings.

::

    workspace/  thano.toml   data/ (what COPY may read)   statements/ (the catalog)   warehouse.duckdb
                snapshots/ (Parquet by fingerprint)   mlflow/   dagster/   models-cache/
                environments/NAME/ (what was tried there: see :mod:`.environments`)
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import WorkspaceError, did_you_mean, nearest
from ..progress import current

SETTINGS_FILE = "thano.toml"
ENVIRONMENT_VARIABLE = "THANO_WORKSPACE"

DROPPED = ".dropped"  # ends the notes of DROP TABLE

SETTINGS_TEXT = """\
# Settings of this workspace. Every line below shows a default; take the '#' away to change one.

[files]
# Folders besides data/ that COPY may read; relative ones start at this file.
# allowed = ["../more-data"]

[statements]
# Longest text of statements that is read at once, in characters.
# max_length = 1000000

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
"""

GITIGNORE_TEXT = """\
# Statements, settings and your own data files are worth keeping in git; what follows can be made again.
/warehouse.duckdb*
/snapshots/
/mlflow/
/dagster/*
!/dagster/dagster.yaml
/models-cache/
/data/thanosql-dataset/
/.locks/
"""

DAGSTER_YAML_TEXT = """\
# The Dagster instance of this workspace; DAGSTER_HOME is this folder, where SQLite files, logs and
# artifacts are kept too.
telemetry:
  enabled: false
nux:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
# A launched run whose process dies is marked as failed and gives its concurrency slots back.
run_monitoring:
  enabled: true
  start_timeout_seconds: 60
  cancel_timeout_seconds: 60
  poll_interval_seconds: 30
  free_slots_after_run_end_seconds: 60
"""


# --------------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class FileSettings:
    """``[files]``: folders besides ``data/`` that COPY may read, as absolute paths."""

    allowed: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StatementSettings:
    """``[statements]``: the longest text of statements that is read at once, in characters."""

    max_length: int = 1_000_000


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
class Settings:
    """What ``thano.toml`` says, with the environment's say on addresses."""

    files: FileSettings = field(default_factory=FileSettings)
    statements: StatementSettings = field(default_factory=StatementSettings)
    warehouse: WarehouseSettings = field(default_factory=WarehouseSettings)
    mlflow: MlflowSettings = field(default_factory=MlflowSettings)
    dagster: DagsterSettings = field(default_factory=DagsterSettings)


_TABLES: dict[str, type] = {
    "files": FileSettings,
    "statements": StatementSettings,
    "warehouse": WarehouseSettings,
    "mlflow": MlflowSettings,
    "dagster": DagsterSettings,
}
_TYPES: dict[str, tuple[type, str]] = {
    "allowed": (list, "a list of folders"),
    "hosts": (list, "a list of host names"),
    "max_length": (int, "a whole number from 1 up"),
    "memory_limit": (str, "a text such as '4GB'"),
    "threads": (int, "a whole number from 1 up"),
    "tracking_uri": (str, "an address in quotes"),
    "url": (str, "an address in quotes"),
    "system_metrics": (bool, "true or false"),
    "timezone": (str, "the name of a time zone such as 'Asia/Seoul'"),
}
_RESERVE = 1 << 20  # bytes: twice what DROP TABLE and DELETE MODEL were seen to need
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
    from zoneinfo import ZoneInfo

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


# -------------------------------------------------------------------------------------------- workspace


class Workspace:
    """Paths and settings of one workspace; nothing is read or made until asked for.

    Attributes:
        root: the folder, absolute, symbolic links resolved.
    """

    #: The workspace that this one borrows from; only an environment has one.
    production: Workspace | None = None
    #: Whether a person named it, instead of it being the folder that is used where none is named.
    named: bool = False

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workspace) and other.root == self.root

    def __hash__(self) -> int:
        return hash(self.root)

    @property
    def data(self) -> Path:
        """What COPY may read."""
        return self.root / "data"

    @property
    def statements(self) -> Path:
        """The catalog: one readable ``.sql`` file for each statement that defines an asset."""
        return self.root / "statements"

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB database file."""
        return self.root / "warehouse.duckdb"

    @property
    def snapshots(self) -> Path:
        """Parquet files named by fingerprint."""
        return self.root / "snapshots"

    def kept(self, snapshot: str) -> Path:
        """Where the snapshot of that name is read: here, or in production where an environment has none."""
        own = self.snapshots / snapshot
        if self.production is None or own.exists():
            return own
        borrowed = self.production.snapshots / snapshot
        return borrowed if borrowed.exists() else own

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlflow"

    @property
    def dagster_home(self) -> Path:
        """The Dagster instance, what ``DAGSTER_HOME`` is set to."""
        return self.root / "dagster"

    @property
    def models_cache(self) -> Path:
        """Base models kept after their first use."""
        return self.root / "models-cache"

    @property
    def settings_path(self) -> Path:
        """The file of settings, ``thano.toml``."""
        return self.root / SETTINGS_FILE

    @property
    def locks(self) -> Path:
        """Folder of locks, and of notes of work that must not be left half done."""
        return self.root / ".locks"

    def unfinished_drops(self) -> list[Path]:
        """Notes of DROP TABLE statements that are under way, or were killed; see ``removal.py``."""
        return [path for path in self.locks.glob(f".*{DROPPED}") if path.is_file()]

    @cached_property
    def settings(self) -> Settings:
        """The settings, read once.

        Raises:
            WorkspaceError: ``thano.toml`` is broken; the error names the line.
        """
        return read_settings(self.settings_path)

    @property
    def readable_folders(self) -> tuple[Path, ...]:
        """Folders whose files a statement may read: ``data/``, then those that the settings add."""
        return (self.data, *self.settings.files.allowed)

    @classmethod
    def find(cls, start: str | Path | None = None, environment: str | None = None) -> Workspace:
        """The workspace to use: ``start``, else ``THANO_WORKSPACE``, else the nearest folder upward from the
        current one that has a ``thano.toml``, else ``./workspace``; in it the environment of that name,
        by default that of ``THANO_ENV`` ('' is production).

        Raises:
            WorkspaceError: an environment cannot have that name.
        """
        from .environments import in_environment

        return in_environment(cls._find(start), environment)

    @classmethod
    def _find(cls, start: str | Path | None) -> Workspace:
        if wanted := start if start is not None else os.environ.get(ENVIRONMENT_VARIABLE):
            try:
                workspace = cls(wanted)
                workspace.root.exists()
            except (OSError, ValueError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or error
                raise WorkspaceError(
                    f"'{str(wanted)[:80]}' cannot be the folder of a workspace: {reason}.",
                    hint="Choose another folder.",
                ) from error
            workspace.named = True
            return workspace
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / SETTINGS_FILE).is_file():
                return cls(folder)
        return cls(here / "workspace")

    @classmethod
    def open(
        cls, path: str | Path | None = None, create: bool = True, environment: str | None = None
    ) -> Workspace:
        """Find a workspace, as :meth:`find` does, and see that it is complete.

        Raises:
            WorkspaceError: it is not there and ``create`` is false, it cannot be made, or its settings
                are broken.
        """
        workspace = cls.find(path, environment)
        if create:
            workspace.create()
        elif not workspace.is_there:
            raise workspace.missing()
        _ = workspace.settings
        return workspace

    @property
    def is_there(self) -> bool:
        """Whether it has been made."""
        return self.settings_path.is_file()

    def missing(self) -> WorkspaceError:
        """The error for a workspace that is not there, with those beside it that have a name like it."""
        try:
            beside = [one.name for one in self.root.parent.iterdir() if (one / SETTINGS_FILE).is_file()]
        except OSError:
            beside = []
        close = nearest(self.root.name, beside)
        hint = (
            f"Did you mean {' or '.join(str(self.root.with_name(one)) for one in close)}? " if close else ""
        )
        return WorkspaceError(
            f"{self.root} is not a workspace.", hint=f"{hint}`thano init {self.root}` makes one."
        )

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (
            self.data,
            self.statements,
            self.snapshots,
            self.mlflow,
            self.dagster_home,
            self.models_cache,
            self.locks,
        )

    @property
    def _files(self) -> dict[Path, str]:
        # The settings come last: their presence is what makes the folder a workspace.
        return {
            self.root / ".gitignore": GITIGNORE_TEXT,
            self.dagster_home / "dagster.yaml": DAGSTER_YAML_TEXT,
            self.settings_path: SETTINGS_TEXT,
        }

    def create(self) -> Workspace:
        """Make what is missing; what is there is left as it is. Several processes may do so at once.

        Raises:
            WorkspaceError: the folder cannot be made or written.
        """
        if all(path.exists() for path in (*self._folders, *self._files)):
            return self
        try:
            for folder in (self.root, *self._folders):
                folder.mkdir(parents=True, exist_ok=True)
            for path, text in self._files.items():
                if not path.exists():
                    _write_once(path, text)
            self.keep_reserve()
        except OSError as error:
            raise WorkspaceError(
                f"The workspace {self.root} cannot be made: {error.strerror or error}.",
                hint=f"Choose another folder with --workspace or {ENVIRONMENT_VARIABLE}.",
            ) from error
        return self

    @property
    def _reserve(self) -> Path:
        return self.locks / "reserve"

    def keep_reserve(self) -> None:
        """Hold some disk back, with which tables and models can be removed when the disk is full."""
        with suppress(OSError, AttributeError):
            if not self._reserve.exists():
                with self._reserve.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, _RESERVE)

    def use_reserve(self) -> bool:
        """Give free what :meth:`keep_reserve` held back; tells whether there was any."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the workspace's lock called ``name``: one holder over all threads and processes.

        The kernel frees it when its holder dies. Waiting says so and ends with Ctrl-C. A workspace that is
        not there has nothing to guard, and is not made by being looked at.
        """
        if not self.is_there:
            yield
            return
        from filelock import FileLock, Timeout

        try:
            (self.locks).mkdir(parents=True, exist_ok=True)
            # Not thread-local: the object never leaves this frame, and threads wait for each other.
            lock = FileLock(self.locks / f"{name}.lock", thread_local=False)
            try:
                lock.acquire(timeout=1)
            except Timeout:
                current().message(f"Waiting for another process that prepares {name}.")
                lock.acquire(poll_interval=0.1)
        except OSError as error:
            raise WorkspaceError(
                f"The workspace {self.root} cannot be written: {error.strerror or error}."
            ) from error
        try:
            yield
        finally:
            lock.release()


def _write_once(path: Path, text: str) -> None:
    """Make ``path`` with ``text`` unless it is there: complete, and never over someone else's."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", newline="\n", delete=False
    ) as file:
        temporary = Path(file.name)
        file.write(text)
    try:
        temporary.chmod(0o644)
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
