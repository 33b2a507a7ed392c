"""MLflow's tracking: where runs are kept, and which of them go on.

Reading goes straight to MLflow's SQLite file (:mod:`.mlflow_reader`) and imports no MLflow; writing goes
through ``MlflowClient``. With ``tracking_uri`` set in ``thano.toml`` a server is asked for everything.
"""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WorkspaceError
from ..progress import current
from . import mlflow_client, mlflow_reader
from .backup import backup_of, sqlite_damage
from .mlflow_reader import RunRow, UnknownSchema
from .mlflow_run import RUN_TAG_LENGTH, cut
from .model_version import TrainingRun
from .relocation import relocate
from .settings import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .settings import Settings
    from .workspace import Workspace

_WORKSPACE_TAG = "thano.workspace"
# What MLflow's page says of an experiment. A browser that opens the page for the first time shows it as one
# of language models all the same, unless the address asks for the view of training.
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"
#: Ends addresses of MLflow's pages: runs and metrics instead of traces.
TRAINING_VIEW = "?workflowType=machine_learning"


class Tracking:
    """Runs of a workspace.

    Args:
        workspace: where MLflow's database and artifacts lie.
        settings: by default the workspace's.
    """

    def __init__(self, workspace: Workspace, settings: Settings | None = None) -> None:
        self.workspace = workspace
        self.settings = settings or workspace.settings
        self.database = workspace.mlflow / "mlflow.db"
        self.artifacts = workspace.mlflow / "artifacts"
        self._client: MlflowClient | None = None
        self._client_lock = threading.Lock()

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and models; what ``MLFLOW_TRACKING_URI`` is set to elsewhere."""
        return self.settings.mlflow.tracking_uri or f"sqlite:///{self.database}"

    @property
    def is_local(self) -> bool:
        """Whether runs and models are kept in the workspace."""
        return self.settings.mlflow.tracking_uri is None

    def newest_training(self, name: str) -> TrainingRun | None:
        """The newest training of a model, also one that goes on in another process; ``None`` without any."""
        name = self.spelt(name)
        row: RunRow | None = self._read(
            lambda connection: mlflow_reader.newest_training(connection, name),
            lambda client: mlflow_client.newest_training(client, name),
        )
        if row is None:
            return None
        status = row.status.lower()
        if status == "running" and self.is_local and not self._alive(row.run_id):
            status = "killed"
        started = datetime.fromtimestamp(row.started_ms / 1000, UTC)
        return TrainingRun(row.run_id, status, started, row.by_step())

    def spelt(self, name: str) -> str:
        """The name of a model as it is kept; see :meth:`.Registry.spelt`."""
        return name

    def run_url(self, run_id: str) -> str:
        """Address of a run in the MLflow UI."""
        experiment = self._read(
            lambda connection: mlflow_reader.experiment_of(connection, run_id),
            lambda client: client.get_run(run_id).info.experiment_id,
        )
        return f"{self._url}/#/experiments/{experiment or 0}/runs/{run_id}{TRAINING_VIEW}"

    @property
    def _url(self) -> str:
        tracking = self.settings.mlflow.tracking_uri or ""
        known = os.environ.get("THANO_MLFLOW_URL")
        address = known or (tracking if tracking.startswith("http") else self.settings.mlflow.url)
        return without_password(address).rstrip("/")

    def _read(self, fast: Any, slow: Any) -> Any:
        """Ask the SQLite file, else MLflow; ``None`` before anything was written."""
        if self.is_local:
            if not self.database.exists():
                if backup_of(self.workspace).exists():
                    raise self._damaged("is missing")
                return None
            with suppress(UnknownSchema):
                return mlflow_reader.read(self.database, fast)
        from .mlflow_model import quiet

        with quiet():
            return slow(self.client)

    def _damaged(self, what: str) -> WorkspaceError:
        return WorkspaceError(
            f"{self.database} {what}.",
            hint="`thano doctor --repair` puts the copy from after the last model in its place.",
        )

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client; the first use makes the database, once over all processes.

        Raises:
            WorkspaceError: the database cannot be made, or was made by another version of MLflow.
        """
        with self._client_lock:
            if self._client is None:
                from .mlflow_model import quiet

                with quiet():
                    from mlflow import MlflowClient
                    from mlflow.exceptions import MlflowException
                    from sqlalchemy.exc import SQLAlchemyError

                    try:
                        if self.is_local and not self.database.exists():
                            self._make_database()
                        elif self.is_local:
                            relocate(self.workspace)
                        client = MlflowClient(self.tracking_uri, registry_uri=self.tracking_uri)
                        client.search_experiments(max_results=1)
                    except (MlflowException, SQLAlchemyError, ModuleNotFoundError) as error:
                        if self.is_local and (wrong := sqlite_damage(self.database)):
                            raise self._damaged(wrong) from error
                        raise WorkspaceError(
                            f"MLflow cannot use {without_password(self.tracking_uri)}: "
                            f"{without_password(sentence(error))}",
                            hint=f"After an upgrade of MLflow: mlflow db upgrade sqlite:///{self.database}."
                            if self.is_local
                            else "Check tracking_uri under [mlflow] in thano.toml.",
                        ) from error
                    self._client = client
            return self._client

    def _make_database(self) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with self.workspace.lock("mlflow"):
            if self.database.exists():
                return
            current().message("Making MLflow's database (once for a workspace).")
            self.artifacts.mkdir(parents=True, exist_ok=True)
            # Made under another name, so that a kill amid its fifty migrations leaves nothing half made.
            temporary = self.database.with_name(".new.db")
            temporary.unlink(missing_ok=True)
            store = SqlAlchemyStore(f"sqlite:///{temporary}", self.artifacts.as_uri())
            store.engine.dispose()
            temporary.replace(self.database)

    def _experiment(self, client: MlflowClient, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(name)
        if found is not None and _KIND_TAG not in found.tags:
            client.set_experiment_tag(found.experiment_id, _KIND_TAG, _KIND)
        if found is None:
            folder = self.artifacts / re.sub(r"[^\w.-]", "_", name)[:80]
            try:
                place = folder.as_uri() if self.is_local else None
                return str(client.create_experiment(name, place, tags={_KIND_TAG: _KIND}))
            except MlflowException:  # another process was faster
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _run_lock(self, run_id: str) -> Path:
        return self.workspace.locks / f"run-{run_id}.lock"

    def _alive(self, run_id: str) -> bool:
        """Whether the process of a run that has not ended still lives."""
        from filelock import FileLock, Timeout

        lock = self._run_lock(run_id)
        if not lock.exists():
            return False
        try:
            with FileLock(lock, timeout=0, thread_local=False):
                return False
        except Timeout:
            return True

    @contextmanager
    def _running(self, experiment: str, title: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A new run, by its id; others can tell that it goes on for as long as the block does.

        Args:
            experiment: its id.
            title: the run's name.
            tags: of the run.
        """
        from filelock import FileLock

        root = self.workspace.root
        given = {**tags, _WORKSPACE_TAG: str(root), "mlflow.source.name": "thano", **_origin(str(root))}
        run = self.client.create_run(experiment, run_name=title, tags=cut(given, RUN_TAG_LENGTH))
        lock = self._run_lock(run.info.run_id)
        # Held while the process lives: how others tell a run that goes on from one that was killed.
        with FileLock(lock, thread_local=False):
            try:
                yield run.info.run_id
            finally:
                lock.unlink(missing_ok=True)

    def _end_killed(self, client: MlflowClient) -> Iterator[tuple[str, str]]:
        """End the runs of processes that died; gives the experiment and id of each, its lock still held."""
        if not self.is_local:
            return
        try:
            open_runs = mlflow_reader.read(self.database, mlflow_reader.running)
        except UnknownSchema:
            return
        from filelock import FileLock, Timeout

        for run_id in open_runs:
            run = client.get_run(run_id)
            if _WORKSPACE_TAG not in run.data.tags:
                continue
            try:
                with FileLock(self._run_lock(run_id), timeout=0, thread_local=False):
                    client.set_terminated(run_id, "KILLED")
                    yield run.info.experiment_id, run_id
            except Timeout:
                continue
            self._run_lock(run_id).unlink(missing_ok=True)

    @contextmanager
    def _system_metrics(self, run_id: str) -> Iterator[None]:
        """Sample processor, memory, disk and network use into the run, where psutil is there."""
        monitor = None
        if self.settings.mlflow.system_metrics:
            with suppress(ImportError):
                import psutil  # noqa: F401 - what the monitor samples with
                from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

                monitor = SystemMetricsMonitor(run_id, tracking_uri=self.tracking_uri)
                monitor.start()
        try:
            yield
        finally:
            if monitor is not None:
                monitor.finish()


def sentence(error: Exception) -> str:
    """The message of an error on one line, 300 characters at most."""
    text = " ".join(str(error).split())
    return (text if len(text) <= 300 else text[:299] + "…").rstrip(".") + "."


def _origin(folder: str) -> dict[str, str]:
    """Who starts a run, and the commit of the git repository that the folder is in, as MLflow shows them."""
    found = {}
    with suppress(OSError, KeyError, ImportError):  # a user without a name, as in some containers
        found["mlflow.user"] = getpass.getuser()
    with suppress(OSError, subprocess.SubprocessError):
        git = ["git", "-C", folder, "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, timeout=2, check=True).stdout.strip()
        found["mlflow.source.git.commit"] = commit
    return found
