"""Models that were trained elsewhere: the folder that UPLOAD MODEL names, looked at without loading it.

A folder is what Transformers' ``save_pretrained`` writes: ``config.json``, safetensors weights and the
tokenizer's files. In place of safetensors a state dict that ``torch.save`` wrote may lie there; it is read
with ``weights_only=True``, so nothing that is hidden in it is run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataFileError, PathRefused, ThanoError
from ..learning.model_folder import Upload
from .files import candidates, check_inside, missing

if TYPE_CHECKING:
    from .workspace import Workspace

#: Endings of files that a state dict of torch may have.
STATE_DICTS = (".bin", ".pth", ".pt")
_PARTS = frozenset({".json", ".txt", ".model"})
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
# What a training leaves beside its weights.
_NO_WEIGHTS = frozenset(
    {"training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin"}
)
_NO_PARTS = frozenset({"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"})
_FORM = (
    "A model's folder is what save_pretrained of Transformers writes for model and tokenizer: "
    "config.json, model.safetensors, tokenizer.json."
)
_NUMBERED = re.compile(r"LABEL_\d+")


def find(workspace: Workspace, path: str) -> Upload:
    """The model that ``path`` means: a folder, or a file of weights with the rest beside it.

    A relative path starts where that of a COPY does, in the data folder.

    Raises:
        PathRefused: the path, or what a link in the folder points to, leads out of the folders that may be
            read, or is an address.
        DataFileError: nothing is there, it is no folder of a text classifier, or a part is missing.
    """
    text = path.strip()
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise PathRefused(
            f"'{path}' is an address, and UPLOAD MODEL reads folders of this machine only.",
            hint=f"Put the folder under {workspace.data} and name it here.",
        )
    if not text or "\0" in text:
        raise DataFileError("The path is empty.", hint=_FORM)
    try:
        found = next((one for one in candidates(workspace, text) if one.exists()), None)
        check_inside(workspace, path, found or candidates(workspace, text)[0], reader="UPLOAD MODEL")
        if found is None:
            raise missing(workspace, path)
        return _looked_at(workspace, path, found)
    except (OSError, RuntimeError) as error:
        if isinstance(error, ThanoError):
            raise
        raise DataFileError(
            f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error


def _looked_at(workspace: Workspace, path: str, found: Path) -> Upload:
    folder = found if found.is_dir() else found.parent
    inside = sorted(file for file in folder.iterdir() if file.is_file())
    for file in inside:
        check_inside(workspace, str(Path(path) / file.name), file, reader="UPLOAD MODEL")
    if any((place / "model.skops").is_file() for place in (folder, folder / "model")):
        raise DataFileError(
            f"'{path}' is a model of tables; UPLOAD MODEL registers classifiers of texts.",
            hint="BUILD MODEL … USING AutomlClassifier or AutomlRegressor finds one from the rows.",
        )
    if not (folder / "config.json").is_file():
        where = "in it" if found.is_dir() else "beside it"
        raise DataFileError(f"'{path}' is not a model's folder: there is no config.json {where}.", hint=_FORM)
    config = _config(folder / "config.json", path)
    weights = _weights(path, found, inside)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise DataFileError(
            f"'{path}' has no tokenizer.",
            hint="Save it into the folder too: AutoTokenizer.from_pretrained(…).save_pretrained(folder).",
        )
    files = [
        file
        for file in inside
        if file in weights
        or (file.suffix in _PARTS and file.name not in _NO_PARTS and not file.name.endswith(".index.json"))
    ]
    return Upload(
        folder,
        weights,
        tuple(files),
        _classes(config, path),
        str(config.get("model_type", "")),
    )


def _config(file: Path, path: str) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFileError(f"The config.json of '{path}' is not JSON: {error}.", hint=_FORM) from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise DataFileError(f"The config.json of '{path}' does not say model_type.", hint=_FORM)
    kinds = [str(name) for name in config.get("architectures") or ()]
    if kinds and not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise DataFileError(
            f"'{path}' holds {kinds[0]}, not a classifier of texts (…ForSequenceClassification).",
            hint=f"BUILD MODEL name USING '{path}' AS SELECT … trains a classifier from it.",
        )
    kind = config.get("problem_type")
    if kind not in (None, "single_label_classification"):
        raise DataFileError(
            f"'{path}' is a model for {str(kind).replace('_', ' ')}; PREDICT gives one label for each text.",
            hint="Upload a classifier that was trained for single_label_classification.",
        )
    return config


def _weights(path: str, found: Path, inside: list[Path]) -> tuple[Path, ...]:
    if found.is_file():
        if found.suffix not in (".safetensors", *STATE_DICTS):
            raise DataFileError(f"'{path}' is neither a model's folder nor a file of weights.", hint=_FORM)
        return (found,)
    index = found / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))
        absent = [name for name in names if found / name not in inside]
        if absent or not names:
            raise DataFileError(
                f"'{path}' lacks {', '.join(absent[:3]) or 'weights'}, which its index names."
            )
        return tuple(found / name for name in names)
    if found / "model.safetensors" in inside:
        return (found / "model.safetensors",)
    states = [file for file in inside if file.suffix in STATE_DICTS and file.name not in _NO_WEIGHTS]
    states = [file for file in states if file.name == "pytorch_model.bin"] or states
    if len(states) > 1:
        listed = ", ".join(file.name for file in states[:4])
        raise DataFileError(
            f"'{path}' has several files of weights ({listed}).",
            hint=f"Name one: FROM '{path}/{states[0].name}'.",
        )
    if not states:
        raise DataFileError(f"'{path}' has no weights (model.safetensors).", hint=_FORM)
    return (states[0],)


def _classes(config: dict[str, Any], path: str) -> list[str]:
    """The labels; Transformers' own default is two without names."""
    given = config.get("id2label")
    stated = config.get("num_labels")
    try:
        named = {int(number): str(label) for number, label in dict(given).items()} if given else {}
    except (TypeError, ValueError):
        named = {-1: ""}
    if not given:
        named = {number: f"LABEL_{number}" for number in range(int(stated or 2))}
    if sorted(named) != list(range(len(named))):
        raise DataFileError(
            f"The labels (id2label) of '{path}' are not numbered from 0 on.",
            hint="Correct them in config.json.",
        )
    if given and isinstance(stated, int) and stated != len(named):
        raise DataFileError(
            f"The config.json of '{path}' says num_labels {stated} and names {len(named)} labels (id2label).",
            hint="Correct config.json: id2label needs a name for each output.",
        )
    classes = [named[number] for number in range(len(named))]
    if len(set(classes)) != len(classes):
        raise DataFileError(f"Two labels of '{path}' have the same name (id2label).", hint="Name them apart.")
    if len(classes) < 2:
        raise DataFileError(
            f"'{path}' has one output: a regression, not a classifier.", hint="A classifier has two or more."
        )
    return classes
