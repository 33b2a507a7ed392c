"""A classifier that was trained elsewhere, taken over: loaded once whole, checked, saved again."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, AutoTokenizer

from ..errors import DataFileError
from .encode import limit
from .model_folder import Upload, new_folder
from .predict import Predictor
from .transformers_logging import quiet_transformers

# Where trainings keep the weights inside of what they save.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SHOWN = 3
_WHOLE = "1000GB"  # one file of weights, whatever its size
_TRIED = ["A text to try it with.", "another"]


def adopt(upload: Upload, path: str, target: Path) -> int:
    """Make the Hugging Face folder ``target`` of an uploaded model: float32 safetensors, one file.

    No code of the folder is run and no pickle is read.

    Args:
        upload: the folder.
        path: what the person called it.
        target: the folder to make, at the very end; must not exist.

    Returns:
        the most tokens that the model reads of a text.

    Raises:
        DataFileError: weights and configuration do not belong together, a part is broken, or the
            architecture needs code that Transformers does not have.
    """
    if upload.architecture not in CONFIG_MAPPING:
        raise DataFileError(
            f"'{path}' is of the kind {upload.architecture}, which Transformers does not know.",
            hint="Code that a model brings along is not run.",
        )
    with quiet_transformers(), tempfile.TemporaryDirectory(prefix="thano-upload-") as folder:
        source = _gathered(upload, path, Path(folder))
        model = _model(source, upload, path)
        tokenizer = _tokenizer(source, model, path)
        longest = limit(tokenizer, model.config)
        names = upload.classes
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: number for number, name in enumerate(names)}
        model.config.problem_type = "single_label_classification"
        with new_folder(target) as made:
            model.save_pretrained(made, max_shard_size=_WHOLE)
            tokenizer.save_pretrained(made)
            _try(made, upload, path)
    return longest


def _gathered(upload: Upload, path: str, folder: Path) -> Path:
    """A folder with the upload's files and safetensors weights; nothing else of the original is looked at."""
    for file in upload.files:
        if file not in upload.weights:
            (folder / file.name).symlink_to(file.resolve())
    if upload.is_state_dict:
        from safetensors.torch import save_file

        tensors = _state_dict(upload.weights[0], path)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif len(upload.weights) == 1:
        (folder / "model.safetensors").symlink_to(upload.weights[0].resolve())
    else:
        for file in upload.weights:
            (folder / file.name).symlink_to(file.resolve())
        shutil.copyfile(
            upload.folder / "model.safetensors.index.json", folder / "model.safetensors.index.json"
        )
    return folder


def _state_dict(file: Path, path: str) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch have errors of many kinds for what is no state dict
        reason = (
            "holds more than tensors, and reading that could run code that is hidden in it"
            if "weights_only" in str(error) or "Weights only" in str(error)
            else "is not a file that torch.save wrote"
        )
        raise DataFileError(
            f"'{file.name}' of '{path}' {reason}.",
            hint="Save the weights alone: model.save_pretrained(folder), "
            "or torch.save(model.state_dict(), file).",
        ) from error
    for name in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    tensors = found if isinstance(found, dict) else {}
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise DataFileError(
            f"'{file.name}' of '{path}' is not a state dict (names with tensors).",
            hint="torch.save(model.state_dict(), file) writes one.",
        )
    # DataParallel and compiled models put their own word before each name; memory that two names share
    # is not what safetensors keeps.
    plain = {}
    for name, tensor in tensors.items():
        for word in ("module.", "_orig_mod."):
            name = str(name).removeprefix(word)
        plain[name] = tensor.detach().clone().contiguous()
    return plain


def _model(source: Path, upload: Upload, path: str) -> Any:
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(upload.classes),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are told below, in our words
            output_loading_info=True,
        )
    except Exception as error:  # whatever a broken configuration or file of weights makes Transformers raise
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DataFileError(f"'{path}' cannot be loaded: {reason}.") from error
    wrong = sorted(report["mismatched_keys"], key=str)
    absent = sorted(report["missing_keys"])
    for _, theirs, ours in wrong:
        if tuple(ours)[:1] == (len(upload.classes),) and tuple(theirs)[1:] == tuple(ours)[1:]:
            raise DataFileError(
                f"The weights of '{path}' have {theirs[0]} outputs, its config.json names "
                f"{len(upload.classes)} labels.",
                hint="Correct id2label in config.json: a name for each output.",
            )
    if wrong:
        name, theirs, ours = wrong[0]
        raise DataFileError(
            f"The weights of '{path}' do not fit its config.json: {name} is {_shape(theirs)}, "
            f"not {_shape(ours)}.",
            hint="Save both from the same model: model.save_pretrained(folder).",
        )
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        raise DataFileError(
            f"The weights of '{path}' lack {', '.join(absent[:_SHOWN])}{more}.",
            hint="They are not those of a trained classifier of this kind. "
            f"BUILD MODEL name USING '{path}' AS SELECT … trains one from an encoder.",
        )
    return model.eval()


def _tokenizer(source: Path, model: Any, path: str) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as above
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise DataFileError(f"The tokenizer of '{path}' cannot be loaded: {reason}.") from error
    known = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > known:
        raise DataFileError(
            f"The tokenizer of '{path}' has {len(tokenizer):,} tokens, the model {known:,}.",
            hint="Save the tokenizer that the model was trained with.",
        )
    return tokenizer


def _try(folder: Path, upload: Upload, path: str) -> None:
    """Have the model answer, as PREDICT will."""
    found = Predictor.load(folder, precision="fp32").predict(_TRIED)
    if found.shape != (len(_TRIED), len(upload.classes)) or not np.isfinite(found).all():
        raise DataFileError(
            f"'{path}' gives no probabilities for {len(upload.classes)} labels.",
            hint=f"Its config.json: {json.dumps(upload.classes[:8], ensure_ascii=False)}.",
        )


def _shape(sizes: Any) -> str:
    return " × ".join(str(size) for size in tuple(sizes))
