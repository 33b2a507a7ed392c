"""Hugging Face folders of models: what is wrong with one, and what stands for its weights; without torch."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..system import file_digest

_NUMBERED = re.compile(r"LABEL_\d+")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Upload:
    """A model's folder that was found fit to be looked at more closely.

    Attributes:
        folder: holds configuration and tokenizer.
        weights: one state dict of torch, or the safetensors files.
        files: everything that decides what the model answers, in order of name.
        classes: the labels of ``config.json``, in the order of the outputs.
        architecture: Transformers' model type (``electra``, ``bert``, …).
    """

    folder: Path
    weights: tuple[Path, ...]
    files: tuple[Path, ...]
    classes: list[str]
    architecture: str

    @property
    def is_state_dict(self) -> bool:
        """Whether the weights are a state dict of torch, to be converted."""
        return self.weights[0].suffix != ".safetensors"

    @property
    def has_names(self) -> bool:
        """Whether the labels have names, other than ``LABEL_0``, ``LABEL_1``, …."""
        return not all(_NUMBERED.fullmatch(name) for name in self.classes)

    def digests(self, digest: Callable[[Path], str] = file_digest) -> dict[str, str]:
        """The digest of each file by its name, shortened."""
        return {file.name: digest(file)[:16] for file in self.files}

    def fingerprint(self, digest: Callable[[Path], str] = file_digest) -> str:
        """Stands for the content of the files; hex.

        Args:
            digest: gives the SHA-256 hex of a file.
        """
        lines = "".join(f"{file.name}:{digest(file)}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()[:32]


def folder_damage(folder: Path, *, weights: bool = True) -> tuple[Path, str] | None:
    """The first file of a model's folder that is missing or broken, and what is wrong with it."""
    if not (folder / "config.json").is_file():
        return folder / "config.json", "is missing"
    for path in sorted(folder.glob("*.json")):
        if not is_json(path):
            return path, "is no JSON"
    if not weights:
        return None
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (KeyError, TypeError, AttributeError):
            return index, "is no index of weights"
    for name in names:
        if wrong := safetensors_damage(folder / name):
            return folder / name, wrong
    return None


def is_json(path: Path) -> bool:
    """Whether the file is there and holds JSON."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False
    return True


def safetensors_damage(path: Path) -> str | None:
    """What is wrong with a file of weights, judged by its head and its size."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > 100_000_000:
                return "holds no weights"
            head = json.loads(file.read(size))
        ends = [one["data_offsets"][1] for name, one in head.items() if name != "__metadata__"]
    except FileNotFoundError:
        return "is missing"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return "holds no weights"
    wanted = 8 + size + max(ends, default=0)
    return (
        None
        if path.stat().st_size == wanted
        else f"is cut off at {path.stat().st_size:,} of {wanted:,} bytes"
    )


def weights_digest(folder: Path) -> str:
    """SHA-256 of a model folder's weights, half of it: what stands for the version's answers."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:32]


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
