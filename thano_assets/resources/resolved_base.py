"""A base model of which the weights are certain, wherever they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..progress import SILENT, Progress
from .packaged import PackagedEncoder

#: The source of bases that are no weights but a search for a model; what counts is the trainer's version.
LIBRARY, LIBRARY_REVISION = "library", "1"

#: What a model is called that came by UPLOAD MODEL, where others name their base.
UPLOADED = "upload"

#: The source of a base model that was built here: a version in the registry.
MODEL = "model"


@dataclass(frozen=True)
class ResolvedBase:
    """A base model of which the weights are certain.

    Attributes:
        name: what the statement said.
        architecture: Transformers' model type (``electra``, ``bert``, …).
        source: one of :data:`SOURCES`, :data:`MODEL`, :data:`LIBRARY` or :data:`UPLOADED`.
        revision: commit on the hub; ``<version>+sha256:…`` of a package's weights; ``sha256:…`` of a folder;
            the data version of a model.
        hub_id: repository, where the weights come from one.
        note: what a person should know about these weights, or ``None``.
        max_length: tokens read by default where the base has a default of its own.
        version: of the model, where it was built here.
        origin: what that one was made from, in words.
        encoder: the packaged weights, where the source is ``package``.
    """

    name: str
    architecture: str
    source: str
    revision: str
    hub_id: str | None = None
    note: str | None = None
    max_length: int | None = None
    version: int | None = None
    origin: str | None = None
    encoder: PackagedEncoder | None = None
    _folder: Callable[[Progress], Path] = field(repr=False, compare=False, default=lambda progress: Path())

    @property
    def identity(self) -> str:
        """What a fingerprint needs: the same for the same weights in the same shape, wherever they lay."""
        if self.source == MODEL:
            return identity_of_model(self.revision)
        package = self.encoder and self.encoder.package
        origins = {"folder": "folder", "package": package, UPLOADED: UPLOADED, LIBRARY: self.name}
        origin = origins.get(self.source, self.hub_id)
        return f"{origin}@{self.revision}:{self.architecture}"

    def describe(self) -> str:
        """One line that says what is used and where it is from."""
        if self.encoder is not None:
            shape, package = self.architecture.upper(), self.encoder.package
            return f"{self.name}: {self.encoder.model} in {shape} shape from package {package}"
        if self.source == MODEL:
            origin = f", {self.origin}" if self.origin else ""
            return f"{self.name} version {self.version} ({self.architecture.upper()}{origin})"
        if self.source == LIBRARY:
            return f"{self.name}: searched with Optuna over LightGBM and scikit-learn"
        if self.source == UPLOADED:
            return f"{self.name}: {self.architecture.upper()} trained elsewhere ({self.revision[:19]})"
        if self.source == "folder":
            return f"{self.name}: {self.architecture.upper()} from a folder ({self.revision[:19]})"
        return f"{self.name}: {self.hub_id} ({self.source}, revision {self.revision[:12]})"

    def folder(self, progress: Progress = SILENT) -> Path:
        """The Hugging Face folder with configuration, safetensors and tokenizer; downloads or converts first.

        Raises:
            BaseModelUnavailable: a download broke off.
        """
        return self._folder(progress)

    def fetched(self, progress: Progress = SILENT) -> ResolvedBase:
        """The same base with its folder at hand, fit to be handed to another process.

        Raises:
            BaseModelUnavailable: as :meth:`folder`.
        """
        return replace(self, _folder=partial(_at_hand, self.folder(progress)))


def _at_hand(folder: Path, _progress: Progress) -> Path:
    return folder


def identity_of_model(revision: str) -> str:
    """The identity of a base model that was built here, from its data version."""
    return f"{MODEL}@{revision}"


def model_type(path: Path) -> str:
    """Transformers' model type (``electra``, ``bert``, …) of the model in a Hugging Face folder."""
    return str(json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type", "unknown"))
