"""A workspace: the one folder that holds data, statements, tables, models and runs, and its settings.

::

    workspace/  thano.toml   data/ (what COPY may read)   statements/ (the catalog)   warehouse.duckdb
                snapshots/ (Parquet by fingerprint)   mlflow/   dagster/   models-cache/
                environments/NAME/ (what was tried there: see :mod:`.environments`)
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path

from ..errors import WorkspaceError, nearest
from ..progress import current
from .dagster_home import dagster_yaml
from .settings import SETTINGS_TEXT, QueueSettings, Settings, read_settings

SETTINGS_FILE = "thano.toml"
ENVIRONMENT_VARIABLE = "THANO_WORKSPACE"

DROPPED = ".dropped"  # ends the notes of DROP TABLE

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

_RESERVE = 1 << 20  # bytes: twice what DROP TABLE and DELETE MODEL were seen to need


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
    def server(self) -> Path:
        """Folder of what ``thano serve`` keeps: tokens, the log of queries, templates, runs."""
        return self.root / "server"

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
    def find(cls, start: str | Path | None = None) -> Workspace:
        """``start``, else ``THANO_WORKSPACE``, else the nearest folder upward that has a ``thano.toml``, else
        ``./workspace``; see :func:`.environments.find`.
        """
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
            self.dagster_home / "dagster.yaml": dagster_yaml(QueueSettings()),
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

    def table_lock(self, name: str) -> AbstractContextManager[None]:
        """The lock of those who define the table ``name``, or drop it."""
        return self.lock("table-" + re.sub(r"\W", "_", name.casefold()))

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
