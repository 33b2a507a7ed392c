"""The registry: every training is an MLflow run (:mod:`.tracking`), every success a registered version."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlparse

from ..errors import InvalidOption, UnknownModel, WorkspaceError, did_you_mean
from ..progress import current
from ..sql.grammar import CHAMPION
from ..stopping import permit
from . import mlflow_client, mlflow_reader
from .backup import back_up
from .mlflow_reader import VersionRow
from .mlflow_run import (
    DESCRIPTION_LENGTH,
    DIGEST_LENGTH,
    METRICS_TAG,
    RUN_TAG_LENGTH,
    BuildRun,
    cut,
    log_dataset,
    unpacked,
)
from .model_version import ModelVersion
from .settings import without_password
from .tracking import TRAINING_VIEW, Tracking, sentence

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from .settings import Settings
    from .workspace import Workspace

_MODEL_TAG = "thano.model"
#: Tag of a version: whether it was promoted.
DECISION_TAG = "thano.promotion"
#: Tag of a version: the sentence that says why it was promoted or not.
VERDICT_TAG = "thano.promotion_reason"


class Registry(Tracking):
    """Models of a workspace, and the runs that they come from.

    Args:
        workspace: where MLflow's database and artifacts lie.
        settings: by default the workspace's.
    """

    def __init__(self, workspace: Workspace, settings: Settings | None = None) -> None:
        super().__init__(workspace, settings)
        self._held = threading.local()

    # ----------------------------------------------------------------------------------------- reading

    def models(self) -> list[str]:
        """Names of all models, in order."""
        return sorted(self._read(mlflow_reader.models, mlflow_client.models) or [])

    def spelt(self, name: str) -> str:
        """The name as the registry has it: names go without case, as those of tables do.

        A registry of before may have two that differ in case; each is then meant by its own spelling alone.

        Raises:
            UnknownModel: it is the spelling of neither.
        """
        known = self.models()
        if name in known:
            return name
        alike = [one for one in known if one.casefold() == name.casefold()]
        if len(alike) > 1:
            raise UnknownModel(
                f"There are several models {name}.", hint=f"Write one as it is: {', '.join(alike)}."
            )
        return alike[0] if alike else name

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, oldest first; none if there is no such model."""
        return [self._version(row) for row in self._rows(name)]

    def champion(self, name: str) -> ModelVersion | None:
        """The version that answers when only the model's name is given."""
        return self.resolve(name)

    def resolve(self, name: str, version: int | None = None, alias: str | None = None) -> ModelVersion | None:
        """The version that a statement means: by number, by alias, else the champion; ``None`` if none is.

        Raises:
            WorkspaceError: it is registered and its files are gone.
        """
        if version is None and alias is None:
            alias = CHAMPION
        rows = self._rows(name, version, None if version is not None else alias)
        if not rows and alias is not None:
            every = self._rows(name)
            rows = [row for row in every if alias.casefold() in {one.casefold() for one in row.aliases}]
        if not rows:
            return None
        found = self._version(rows[-1])
        if self._place(rows[-1]) is not None and not (found.path / "config.json").is_file():
            raise WorkspaceError(
                f"The files of model {found.name} version {found.version} are not at {found.path}.",
                hint=f"DELETE MODEL {found.name} VERSION {found.version} forgets it; BUILD MODEL builds it.",
            )
        return found

    def model_url(self, name: str, version: int | None = None) -> str:
        """Address of a model, or of one of its versions, in the MLflow UI."""
        address = f"{self._url}/#/models/{quote(name, safe='')}"
        return (address if version is None else f"{address}/versions/{version}") + TRAINING_VIEW

    def _rows(self, name: str, version: int | None = None, alias: str | None = None) -> list[VersionRow]:
        name = self.spelt(name)
        rows: list[VersionRow] | None = self._read(
            lambda connection: mlflow_reader.versions(connection, name, version, alias),
            lambda client: mlflow_client.versions(client, name, version, alias),
        )
        return rows or []

    def _version(self, row: VersionRow) -> ModelVersion:
        tags = unpacked(row.tags)
        kept = tags.pop(METRICS_TAG, None)
        return ModelVersion(
            name=row.name,
            version=row.version,
            aliases=tuple(sorted(row.aliases)),
            run_id=row.run_id or "",
            locate=lambda: self._folder(row),
            tags=tags,
            metrics=_metrics(kept) or row.metrics,
            params=row.params,
            created=datetime.fromtimestamp(row.created_ms / 1000, UTC),
            description=row.description or "",
        )

    def _folder(self, row: VersionRow) -> Path:
        """Where the version's artifacts lie on this machine; those of a server are fetched once."""
        place = self._place(row)
        if place is not None:
            inside = place.as_posix().partition("/mlflow/artifacts/")[2]
            # The database holds absolute paths; a workspace that was moved or copied reads its own files.
            own = self.artifacts / inside
            return own if self.is_local and inside and own.exists() else place
        target = self._fetched(row.name, row.version, row.run_id)
        if not target.exists():
            self._download(row, target)
        return target

    def _place(self, row: VersionRow) -> Path | None:
        """The folder of the version's artifacts; ``None`` where they have to be fetched from a server."""
        place = _local_path(row.location)
        return place if self.is_local or (place is not None and place.exists()) else None

    def _fetched(self, name: str, version: int, run_id: str | None) -> Path:
        """Where the artifacts of a server's version are kept; another server may have one of that number."""
        return self.workspace.models_cache / "registry" / quote(name, safe="") / f"{version}-{run_id or ''}"

    def _download(self, row: VersionRow, target: Path) -> None:
        from .mlflow_model import quiet

        where = without_password(self.tracking_uri)
        current().message(f"Fetching model {row.name} version {row.version} from {where}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with quiet(), tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
            from mlflow.artifacts import download_artifacts
            from mlflow.exceptions import MlflowException

            try:
                # By its own location: a models:/ address is looked up in the registry of the whole process.
                whole = download_artifacts(
                    row.location,
                    dst_path=folder,
                    tracking_uri=self.tracking_uri,
                    registry_uri=self.tracking_uri,
                )
            except (MlflowException, OSError) as error:
                raise WorkspaceError(
                    f"The files of model {row.name} version {row.version} cannot be fetched from {where}: "
                    f"{without_password(sentence(error))}",
                    hint="Check that the server answers and that it serves artifacts.",
                ) from error
            with suppress(FileExistsError, OSError):  # another process was faster
                Path(whole).rename(target)

    def keep_fetched(self, version: ModelVersion, folder: Path) -> None:
        """Keep the artifacts in ``folder``, which a server was just given, instead of fetching them again."""
        target = self._fetched(version.name, version.version, version.run_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError), tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as beside:
            shutil.copytree(folder, Path(beside) / "artifacts")
            (Path(beside) / "artifacts").rename(target)

    # ----------------------------------------------------------------------------------------- writing

    @contextmanager
    def build(
        self, name: str, tags: Mapping[str, str] | None = None, params: Mapping[str, Any] | None = None
    ) -> Iterator[BuildRun]:
        """An MLflow run for the training of ``name``.

        The run ends FINISHED, FAILED when the block raises, or KILLED when it is interrupted; what a dead
        process left of earlier ones is cleared away first. A version is registered by
        :meth:`BuildRun.register` and by nothing else.

        Raises:
            InvalidOption: MLflow does not take the name.
        """
        check_name(name)
        name = self.spelt(name)
        from .mlflow_model import quiet

        with quiet():
            client = self.client
            for dead_experiment, dead_run in self._end_killed(client):
                self.drop_unregistered(client, dead_experiment, dead_run)
            experiment = self._experiment(client, name)
            given = dict(tags or {})
            with self.open_run(experiment, name, name, given, {_MODEL_TAG: name}, params or {}) as build:
                if statement := given.get("thano.statement"):
                    build.log_text("statement.sql", statement)
                with self._system_metrics(build.run_id):
                    yield build
        self._keep_copy()

    @contextmanager
    def open_run(
        self,
        experiment: str,
        model: str,
        title: str,
        tags: Mapping[str, str],
        marks: Mapping[str, str],
        params: Mapping[str, Any],
    ) -> Iterator[BuildRun]:
        """A run of the experiment that never stays open, see :meth:`build`.

        Args:
            experiment: its id.
            model: what is trained.
            title: the run's name.
            tags: of the run, and of the version that it makes.
            marks: more tags, of the run alone.
            params: settings.
        """
        with self._running(experiment, title, {**tags, **marks}) as run_id:
            build = BuildRun(self, self.client, model, experiment, run_id, dict(tags))
            status = "FAILED"
            try:
                build.log_params(params)
                yield build
                status = "FINISHED"
            except Exception:
                raise
            except BaseException:  # Ctrl-C, or Dagster's own interruption
                status = "KILLED"
                raise
            finally:
                build.close(build.status or status)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the model's versions and aliases: who registers, promotes or deletes takes turns.

        Several may be entered inside each other by one thread.
        """
        held: set[str] = self._held.__dict__.setdefault("names", set())
        key = re.sub(r"\W", "_", name.casefold())
        if key in held:
            yield
            return
        with self.workspace.lock(f"model-{key}"):
            held.add(key)
            try:
                yield
            finally:
                held.discard(key)

    def promote(
        self, name: str, version: int, alias: str = CHAMPION, tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """Make ``version`` the one that answers under ``alias``.

        Args:
            name, version: which.
            alias: what it is called from now on.
            tags: kept with the version and its run, such as why.

        Raises:
            UnknownModel: there is no such version.
        """
        from .mlflow_model import quiet

        with self.exclusive(name):
            found = self.resolve(name, version=version)
            if found is None:
                raise self._unknown(name, version)
            if alias not in found.aliases:
                with quiet():
                    self.set_alias(found.name, version, alias)
            self.tag(found, tags or {})
            promoted = self.resolve(name, version=version)
            assert promoted is not None
        self._keep_copy()
        return promoted

    def set_alias(self, name: str, version: int, alias: str = CHAMPION) -> None:
        """Move ``alias`` to ``version``, unless the run of this context was cancelled."""
        permit()
        self.client.set_registered_model_alias(name, alias, str(version))

    def answering(self, name: str) -> int | None:
        """The number of the version that answers; its files are not looked for."""
        return next((row.version for row in self._rows(name, alias=CHAMPION)), None)

    def withdraw(self, name: str, run_id: str, champion: int | None) -> None:
        """Undo what a run registered, as when it was cancelled meanwhile.

        Args:
            name: of the model.
            run_id: the MLflow run whose version goes.
            champion: the version that answered before; an environment may have borrowed it from production.
        """
        from .mlflow_model import quiet

        with quiet(), self.exclusive(name):
            rows = self._rows(name)
            for row in [row for row in rows if row.run_id == run_id]:
                if len(rows) == 1:
                    self.client.delete_registered_model(name)
                else:
                    if CHAMPION in row.aliases and champion in {one.version for one in rows}:
                        self.client.set_registered_model_alias(name, CHAMPION, str(champion))
                    self.client.delete_model_version(name, str(row.version))
                self._delete_files(self.client, row)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version and of the run that made it; the verdict also heads its description."""
        from .mlflow_model import quiet

        if not tags:
            return
        with quiet():
            if verdict := tags.get(VERDICT_TAG):
                before = version.description.split("\n\n") if version.description else []
                kept = [part for part in before if not part.startswith("> ")]
                description = "\n\n".join([f"> {verdict}", *kept])[:DESCRIPTION_LENGTH]
                self.client.update_model_version(version.name, str(version.version), description)
            shown = {"promoted": tags[DECISION_TAG]} if DECISION_TAG in tags else {}
            for key, value in cut({**tags, **shown}, RUN_TAG_LENGTH).items():
                self.client.set_model_version_tag(version.name, str(version.version), key, value)
                if version.run_id:
                    self.client.set_tag(version.run_id, key, value)

    def log_evaluation(
        self, version: ModelVersion, metrics: Mapping[str, float], *, rows: int, digest: str, source: str
    ) -> None:
        """Record in the version's run what it scored on rows that were kept, and which rows these are.

        Args:
            version: whose run.
            metrics: figures; those that are not finite are left out.
            rows: number of rows.
            digest: fingerprint of the rows.
            source: the file that keeps them.
        """
        from .mlflow_model import quiet

        if not version.run_id:
            return
        with quiet():
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            name = f"evaluation of {version.name}"
            of = {"dataset_name": name, "dataset_digest": digest[:DIGEST_LENGTH]}
            logged = [
                Metric(key, value, now, 0, **of) for key, value in metrics.items() if math.isfinite(value)
            ]
            self.client.log_batch(version.run_id, metrics=logged)
            log_dataset(self.client, version.run_id, name, digest, rows, source, context="evaluation")

    def delete(self, name: str, version: int | None = None) -> list[int]:
        """Delete a version, or the model with all of them, and their files; returns the versions deleted.

        The runs stay in MLflow as a record. When the champion goes and others stay, the newest takes over.

        Raises:
            UnknownModel: there is no such model or version.
        """
        from .mlflow_model import quiet

        name = self.spelt(name)
        with quiet(), self.exclusive(name):
            rows = self._rows(name, version)
            if not rows:
                raise self._unknown(name, version)
            client = self.client
            whole = version is None or len(self._rows(name)) == len(rows)
            if whole:
                client.delete_registered_model(name)
            else:
                client.delete_model_version(name, str(version))
                left = self._rows(name)
                if not any(CHAMPION in row.aliases for row in left) and CHAMPION in rows[0].aliases:
                    client.set_registered_model_alias(name, CHAMPION, str(left[-1].version))
                    current().message(f"{name} version {left[-1].version} is the champion now.")
            for row in rows:  # last: until here a reader may still be loading them
                self._delete_files(client, row)
        self._keep_copy()
        return [row.version for row in rows]

    def _keep_copy(self) -> None:
        """Keep a copy of the database, for the day on which it is damaged."""
        if self.is_local:
            back_up(self.workspace)

    def _delete_files(self, client: MlflowClient, row: VersionRow) -> None:
        from mlflow.exceptions import MlflowException

        model_id = re.search(r"/models/(m-[0-9a-f]+)", row.location)
        # First: on a full disk the record of it cannot be changed before.
        fetched = self._fetched(row.name, row.version, row.run_id)
        folder = fetched if self._place(row) is None else self._folder(row)
        if folder.is_relative_to(self.workspace.mlflow) or folder.is_relative_to(self.workspace.models_cache):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()
        if model_id:
            with suppress(MlflowException):
                client.delete_logged_model(model_id[1])

    def _unknown(self, name: str, version: int | None) -> UnknownModel:
        if version is not None and (rows := self._rows(name)):
            known = ", ".join(str(row.version) for row in rows)
            return UnknownModel(f"Model {name} has no version {version}.", hint=f"Its versions are: {known}.")
        return UnknownModel(f"There is no model {name}.", hint=did_you_mean(name, self.models(), "models"))

    def drop_unregistered(self, client: MlflowClient, experiment: str, run_id: str) -> None:
        """Delete the model files of a run that no registered version points to."""
        registered = {row.location for name in self.models() for row in self._rows(name)}
        for logged in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
            if not any(logged.model_id in location for location in registered):
                folder = _local_path(logged.artifact_location)
                if folder is not None and folder.is_relative_to(self.workspace.mlflow):
                    shutil.rmtree(folder.parent, ignore_errors=True)  # first, for a disk that is full
                client.delete_logged_model(logged.model_id)


def check_name(name: str) -> None:
    """Raise :class:`InvalidOption` if MLflow cannot keep a model of that name."""
    found = [one for one in ("/", ":") if one in name]
    if found or not name.strip() or len(name) > 250:
        what = f"holds '{found[0]}'" if found else "is too long" if name.strip() else "is empty"
        raise InvalidOption(
            f"The model name '{name[:80]}' {what}, which MLflow does not take.",
            hint="Letters of any script, digits, spaces, '_', '-' and '.' are fine.",
        )


def _metrics(text: str | None) -> dict[str, float]:
    """The metrics that a version keeps as text; none where that is no text of metrics."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _local_path(location: str) -> Path | None:
    """The folder that an artifact location means on this machine; ``None`` if it is elsewhere."""
    parsed = urlparse(location)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(location) if parsed.scheme == "" else None
