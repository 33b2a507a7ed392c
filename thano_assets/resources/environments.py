"""Environments: places to try things beside production, which they borrow from and never change.

``workspace/environments/NAME/`` holds what was made there: statements, tables, snapshots, models, runs.
Files in ``data/``, the settings and the base models are production's, and whatever the environment has not
made itself is read from production, without a copy.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from ..errors import BorrowedAsset, WorkspaceError, did_you_mean
from ..progress import current
from ..sql.grammar import CHAMPION
from .mlflow_run import version_tags
from .model_version import ModelVersion, TrainingRun
from .registry import Registry
from .settings import Settings
from .workspace import SETTINGS_FILE, Workspace

ENVIRONMENT_NAME_VARIABLE = "THANO_ENV"

_FOLDER = "environments"
_NAME = re.compile(r"\w[\w-]{0,63}")
# What each environment prepares for itself; every other lock guards folders that it shares with production.
_OWN_LOCKS = re.compile(r"mlflow|model-.*|table-.*")

# On a version that an environment took in from production.
_ORIGIN_TAG = "thano.taken_from"


class Environment(Workspace):
    """A workspace inside another, with tables, models and runs of its own.

    Args:
        production: Whose data and settings it has, and what it borrows from.
        name: Letters, digits, ``-`` and ``_``.

    Raises:
        WorkspaceError: the name is none for an environment.
    """

    def __init__(self, production: Workspace, name: str) -> None:
        if name.casefold() == "production":
            raise WorkspaceError(
                "production is the workspace itself, not an environment of it.", hint="Leave --env out."
            )
        if not _NAME.fullmatch(name):
            raise WorkspaceError(
                f"{name!r} cannot be the name of an environment.",
                hint="Use letters, digits, '-' and '_', at most 64 of them, and no '-' at the start.",
            )
        super().__init__(production.root / _FOLDER / name)
        self.production: Workspace = production
        self.name = name

    def __repr__(self) -> str:
        return f"Environment({self.production!r}, {self.name!r})"

    @property
    def data(self) -> Path:
        """What COPY may read: production's."""
        return self.production.data

    @property
    def models_cache(self) -> Path:
        """Base models kept after their first use: production's."""
        return self.production.models_cache

    @property
    def settings_path(self) -> Path:
        """The file of settings: production's."""
        return self.production.settings_path

    @cached_property
    def settings(self) -> Settings:
        """Production's settings; runs and models are always kept in the environment's own folder.

        On production's MLflow server a model tried here would stand among the versions that answer there.

        Raises:
            WorkspaceError: ``thano.toml`` is broken; the error names the line.
        """
        settings = self.production.settings
        return replace(settings, mlflow=replace(settings.mlflow, tracking_uri=None))

    @property
    def is_there(self) -> bool:
        """Whether it has been made."""
        return self.production.is_there and self.dagster_home.is_dir()

    def missing(self) -> WorkspaceError:
        """The error for an environment that is not there, with those that have a name like it."""
        if not self.production.is_there:
            return self.production.missing()
        folder = self.root.parent
        known = [one.name for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []
        return WorkspaceError(
            f"There is no environment {self.name}.",
            hint=did_you_mean(self.name, known, "environments") + " The first `thano run` in it makes it.",
        )

    @property
    def _folders(self) -> tuple[Path, ...]:
        shared = (self.data, self.models_cache)
        return tuple(folder for folder in super()._folders if folder not in shared)

    @property
    def _files(self) -> dict[Path, str]:
        return {path: text for path, text in super()._files.items() if path != self.settings_path}

    def create(self) -> Workspace:
        """Make what is missing, production's own parts first.

        Raises:
            WorkspaceError: the folder cannot be made or written.
        """
        self.production.create()
        return super().create()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock called ``name``; those that guard what production shares are production's."""
        with super().lock(name) if _OWN_LOCKS.fullmatch(name) else self.production.lock(name):
            yield


def workspace_at(root: str | Path) -> Workspace:
    """The workspace or environment whose own folder is ``root``."""
    workspace = Workspace(root)
    folder = workspace.root
    if folder.parent.name != _FOLDER or (folder / SETTINGS_FILE).exists():
        return workspace
    outer = folder.parent.parent
    return Environment(Workspace(outer), folder.name) if (outer / SETTINGS_FILE).is_file() else workspace


def find(start: str | Path | None = None, environment: str | None = None) -> Workspace:
    """The workspace to use, see :meth:`.Workspace.find`; in it the environment of that name.

    Raises:
        WorkspaceError: an environment cannot have that name.
    """
    return in_environment(Workspace.find(start), environment)


def open_workspace(
    path: str | Path | None = None, create: bool = True, environment: str | None = None
) -> Workspace:
    """Find a workspace, as :func:`find` does, and see that it is complete.

    Raises:
        WorkspaceError: it is not there and ``create`` is false, cannot be made, or has broken settings.
    """
    workspace = find(path, environment)
    if create:
        workspace.create()
    elif not workspace.is_there:
        raise workspace.missing()
    _ = workspace.settings
    return workspace


def in_environment(workspace: Workspace, name: str | None = None) -> Workspace:
    """The environment ``name`` of ``workspace``.

    ``None`` is what ``THANO_ENV`` says, else what ``workspace`` is itself; '' is production.

    Raises:
        WorkspaceError: the name is none for an environment.
    """
    there = workspace_at(workspace.root)
    there.named = workspace.named
    if name is None:
        name = os.environ.get(ENVIRONMENT_NAME_VARIABLE) or None
    if name is None:
        return there
    production = there.production or there
    production.named = workspace.named
    if not name:
        return production
    environment = Environment(production, name)
    environment.named = True
    return environment


def environments(workspace: Workspace) -> list[Environment]:
    """The environments of a workspace, by name."""
    production = workspace.production or workspace
    folder = production.root / _FOLDER
    if not folder.is_dir():
        return []
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))
    return [Environment(production, name) for name in found if name.casefold() != "production"]


def existing_environment(workspace: Workspace, name: str) -> Environment:
    """The environment ``name``, which must be there.

    Raises:
        WorkspaceError: it is not, or it cannot have that name.
    """
    environment = Environment(workspace.production or workspace, name)
    if not environment.root.is_dir():
        known = [one.name for one in environments(workspace)]
        raise WorkspaceError(
            f"There is no environment {name}.", hint=did_you_mean(name, known, "environments")
        )
    return environment


def remove(environment: Environment) -> None:
    """Delete an environment with everything made there; production stays as it is.

    Raises:
        WorkspaceError: it cannot be deleted.
    """
    # Out of sight in one step, so that a kill leaves no half of an environment.
    hidden = environment.root.with_name(f".removed-{uuid.uuid4().hex}")
    try:
        environment.root.rename(hidden)
    except OSError as error:
        raise WorkspaceError(
            f"The environment {environment.name} cannot be removed: {error.strerror or error}.",
            hint="End the programs that work in it, and try again.",
        ) from error
    for abandoned in hidden.parent.glob(".removed-*"):
        shutil.rmtree(abandoned, ignore_errors=True)


class EnvironmentRegistry(Registry):
    """The models of an environment, then those of production, which it reads and never changes.

    A version number, an alias or a plain name means the environment's own version where there is one. So
    production's champion answers until the environment has a champion of its own.
    """

    def __init__(self, workspace: Environment) -> None:
        super().__init__(workspace)
        self.production = Registry(workspace.production)

    def models(self) -> list[str]:
        """Names of all models, own and borrowed, in order."""
        return sorted({*super().models(), *self.production.models()})

    def own_models(self) -> list[str]:
        """Names of the models that the environment made, in order."""
        return super().models()

    def own_versions(self, name: str) -> list[ModelVersion]:
        """The versions that the environment made, oldest first."""
        return super().versions(name)

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, oldest first: the environment's own, or production's if it has none."""
        return super().versions(name) or self.production.versions(name)

    def resolve(self, name: str, version: int | None = None, alias: str | None = None) -> ModelVersion | None:
        """The version that a statement means, else production's; ``None`` if neither has it.

        Raises:
            WorkspaceError: it is registered and its files are gone.
        """
        own = super().resolve(name, version, alias)
        return own if own is not None else self.production.resolve(name, version, alias)

    def newest_training(self, name: str) -> TrainingRun | None:
        """The newest training of a model here, else in production; ``None`` without any."""
        return super().newest_training(name) or self.production.newest_training(name)

    def promote(
        self, name: str, version: int, alias: str = CHAMPION, tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """Make ``version`` the one that answers here under ``alias``.

        A version that only production has is registered here first, with a number of its own; its files stay
        where they are.

        Raises:
            UnknownModel: neither has such a version.
        """
        with self.exclusive(name):
            own = self.own_versions(name)
            if all(version != known.version for known in own):
                lent = self.production.resolve(name, version=version)
                if lent is None:
                    raise (self if own else self.production)._unknown(name, version)
                version = self._take_in(lent, own)
            return super().promote(name, version, alias, tags)

    def _take_in(self, lent: ModelVersion, own: list[ModelVersion]) -> int:
        """Register production's version here, pointing to the same files; returns its number here."""
        from .mlflow_model import quiet

        origin = f"VERSION {lent.version} of production"
        for known in own:
            # Earlier versions named production's folder, which may have been moved.
            if known.tags.get(_ORIGIN_TAG, "").startswith(f"VERSION {lent.version} of "):
                return known.version
        with quiet():
            from mlflow.exceptions import MlflowException

            with suppress(MlflowException):  # it is there, from an earlier version or another process
                self.client.create_registered_model(lent.name, description=lent.description)
            made = self.client.create_model_version(
                lent.name,
                lent.path.parent.as_uri(),
                tags=version_tags({**lent.tags, _ORIGIN_TAG: origin}, lent.metrics),
                description=lent.description,
            )
        current().message(
            f"{lent.name} VERSION {made.version} of this environment is production's VERSION {lent.version}."
        )
        return int(made.version)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of an own version; one of production's stays as it is."""
        if self._is_own(version):
            super().tag(version, tags)

    def log_evaluation(
        self, version: ModelVersion, metrics: Mapping[str, float], *, rows: int, digest: str, source: str
    ) -> None:
        """Record what an own version scored in its run; one of production's stays as it is."""
        if version.run_id and self._is_own(version):
            super().log_evaluation(version, metrics, rows=rows, digest=digest, source=source)

    def _is_own(self, version: ModelVersion) -> bool:
        own = self.own_versions(version.name)
        return any((version.version, version.path) == (known.version, known.path) for known in own)

    def delete(self, name: str, version: int | None = None) -> list[int]:
        """Delete a version or the model with all of them; what production has of it answers from then on.

        Raises:
            UnknownModel: there is no such model or version.
            BorrowedAsset: only production has it.
        """
        if any(version in (None, own.version) for own in self.own_versions(name)):
            return super().delete(name, version)
        if any(version in (None, lent.version) for lent in self.production.versions(name)):
            raise BorrowedAsset.of(f"model {name}" + (f" VERSION {version}" if version is not None else ""))
        raise self._unknown(name, version)


def registry_of(workspace: Workspace) -> Registry:
    """The registry of a workspace or an environment."""
    return EnvironmentRegistry(workspace) if isinstance(workspace, Environment) else Registry(workspace)
