"""A Hugging Face folder as an MLflow model that any MLflow loads, in a process that never heard of us.

Layout of the artifacts::

    MLmodel, requirements.txt, …      MLflow's own, flavours transformers and python_function
    model/                            a complete Hugging Face folder: config, weights, tokenizer
    components/tokenizer/             the tokenizer again (1 MB), where MLflow looks for it
    code/thano_text_model.py          what python_function answers with: rows in, labels and probabilities out
    labels.json  README.md            the labels with their true type; what this model is

The weights are stored once.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WorkspaceError

if TYPE_CHECKING:
    from mlflow.models import Model

_WEIGHTS = {".safetensors", ".bin", ".h5", ".msgpack"}
_REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "mlflow", "pandas")
_MODULE = "thano_text_model"
_LOGGERS = ("mlflow", "alembic")


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow without telemetry, log lines and progress bars; ``MLFLOW_LOGGING_LEVEL`` brings lines back."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    if os.environ["MLFLOW_LOGGING_LEVEL"] == "ERROR":
        import mlflow  # noqa: F401 - its import sets the level of its logger, which is set below

        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def requirements() -> list[str]:
    """What a process needs to load the model, pinned to the versions that made it.

    Given explicitly because MLflow's own inference starts a process for 13 s and fails without torchvision.
    """
    pinned = []
    for name in _REQUIRED:
        try:
            pinned.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            continue
    return pinned


def save(
    source: Path,
    target: Path,
    *,
    model: Model,
    labels: dict[str, Any],
    max_length: int | None,
    card: str,
) -> int:
    """Write the MLflow model of the Hugging Face folder ``source`` to the new folder ``target``.

    Args:
        source: config, weights and tokenizer of a sequence classifier.
        target: made here.
        model: MLflow's record of the model, with its run and id.
        labels: ``classes`` in the order of the outputs, as text, and ``type``, their DuckDB type.
        max_length: longest text in tokens; by default what tokenizer and model allow.
        card: a description in Markdown.

    Returns:
        the length in tokens at which longer texts are cut.

    Raises:
        WorkspaceError: ``source`` is no folder of a sequence classifier.
    """
    import mlflow.transformers
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with _no_bars():
        try:
            classifier = AutoModelForSequenceClassification.from_pretrained(
                str(source.resolve()), local_files_only=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                str(source.resolve()), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise WorkspaceError(f"{source} is not a folder of a text classifier: {reason}") from error
        positions = getattr(classifier.config, "max_position_embeddings", None)
        limits = [max_length, tokenizer.model_max_length, positions]
        length = min(limit for limit in limits if limit)
        # Whoever asks the pipeline for truncation=True without a length gets this one.
        tokenizer.model_max_length = length
        mlflow.transformers.save_model(
            {"model": classifier, "tokenizer": tokenizer},
            str(target),
            mlflow_model=model,
            task="text-classification",
            # What goes in is left to the model's own code: MLflow would take lists only of an unnamed column,
            # and the statement's own column only of data frames.
            signature=ModelSignature(
                outputs=Schema(
                    [
                        ColSpec(AnyType(), "predicted"),
                        ColSpec("double", "probability"),
                        ColSpec(AnyType(), "probabilities"),
                    ]
                )
            ),
            pip_requirements=requirements(),
            # No row of the training: whoever may see the registry need not be one who may see the rows.
            input_example=pd.DataFrame({labels.get("text_col", "text"): ["Write a text here."]}),
        )
    _serve_rows(target, model)
    labels = {**labels, "max_length": length}
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix not in _WEIGHTS and not (target / "model" / file.name).exists():
            shutil.copy2(file, target / "model" / file.name)
    (target / "labels.json").write_text(json.dumps(labels, ensure_ascii=False, indent=1), encoding="utf-8")
    (target / "README.md").write_text(card, encoding="utf-8")
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # weights come with rights for their owner only
    return length


def _serve_rows(target: Path, model: Model) -> None:
    """Let ``python_function`` answer by code of ours that lies beside the model."""
    from thano_assets.learning import served_text

    code = target / "code"
    code.mkdir()
    shutil.copyfile(str(served_text.__file__), code / f"{_MODULE}.py")
    served = model.flavors["python_function"]
    served.pop("model_binary", None)
    served |= {"loader_module": _MODULE, "code": "code", "data": "model"}
    _forget_source(target, model)


def _forget_source(target: Path, model: Model) -> None:
    """Leave out where the weights lay before, a folder that is gone by now.

    MLflow writes it as the model's source, and as the repository whose license should be looked up.
    """
    (target / "LICENSE.txt").unlink(missing_ok=True)
    model.flavors["transformers"]["source_model_name"] = "model"
    model.save(str(target / "MLmodel"))


def save_base(source: Path, target: Path, *, model: Model, card: str) -> None:
    """Write the MLflow model of a base model, the encoder in ``source``, to the new folder ``target``.

    The folder ``model/`` holds the files of ``source`` byte for byte: what is trained from it starts from the
    very weights that its data version stands for.

    Args:
        source: config, weights and tokenizer of an encoder.
        target: made here.
        model: MLflow's record of the model, with its run and id.
        card: a description in Markdown.

    Raises:
        WorkspaceError: ``source`` is no folder of an encoder.
    """
    import mlflow.transformers
    from transformers import AutoModel, AutoTokenizer

    with _no_bars():
        try:
            encoder = AutoModel.from_pretrained(
                str(source.resolve()), local_files_only=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                str(source.resolve()), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise WorkspaceError(f"{source} is not a folder of an encoder: {reason}") from error
        mlflow.transformers.save_model(
            {"model": encoder, "tokenizer": tokenizer},
            str(target),
            mlflow_model=model,
            task="feature-extraction",
            pip_requirements=requirements(),
        )
    _forget_source(target, model)
    for file in source.iterdir():
        if file.is_file():
            shutil.copy2(file, target / "model" / file.name)
    (target / "README.md").write_text(card, encoding="utf-8")
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
