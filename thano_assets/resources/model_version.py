"""What the registry answers with: a registered version, and a training that goes on or has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ..sql.objectives import REPLACED_TOKEN_DETECTION

#: Tag of a version: what was learned, where that is not labels.
OBJECTIVE_TAG = "thano.objective"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version.

    Attributes:
        name, version: as registered; versions count from 1.
        aliases: such as ``('champion',)``.
        run_id: the MLflow run that made it.
        locate: gives the folder of its artifacts, on this machine.
        tags, metrics, params: as given when it was made.
        created: time of registration, UTC.
        description: Markdown.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    locate: Callable[[], Path] = field(compare=False, repr=False)
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]
    created: datetime
    description: str = ""

    @cached_property
    def path(self) -> Path:
        """The model's folder: of Hugging Face (config, weights, tokenizer), or of a model of tables.

        The files of a version that a server keeps are fetched once, when they are first asked for.
        """
        return self.locate() / "model"

    @property
    def is_base(self) -> bool:
        """Whether it is a base model, to train from, and not a classifier."""
        return self.tags.get(OBJECTIVE_TAG) == REPLACED_TOKEN_DETECTION

    def count(self, tag: str) -> int:
        """The number that a tag holds, such as ``thano.rows_train``; 0 where it holds none."""
        text = self.tags.get(tag, "")
        return int(text) if text.isdigit() else 0

    @cached_property
    def labels(self) -> dict[str, Any]:
        """``classes``: labels as text in the order of the model's outputs; ``type``: their DuckDB type."""
        file = self.path.parent / "labels.json"
        if self.is_base:
            return {"classes": [], "type": ""}
        if file.is_file():
            return dict(json.loads(file.read_text(encoding="utf-8")))
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        by_id = {int(number): label for number, label in config.get("id2label", {}).items()}
        return {"classes": [by_id[number] for number in sorted(by_id)], "type": "VARCHAR"}

    @property
    def classes(self) -> list[str]:
        """Labels as text, in the order of the model's outputs."""
        return list(self.labels["classes"])

    @property
    def task(self) -> str | None:
        """What a model of tables predicts: ``classification`` or ``regression``; ``None`` of text models."""
        task = self.tags.get("thano.task")
        return task if task in ("classification", "regression") else None

    @property
    def kind(self) -> str:
        """What it is, in words: ``base model``, ``classifier`` or ``regressor``."""
        if self.is_base:
            return "base model"
        return "regressor" if self.task == "regression" else "classifier"

    @property
    def features(self) -> list[dict[str, Any]]:
        """The columns that a model of tables reads: ``name``, ``kind``, ``type``, and ``size`` of vectors."""
        return list(self.labels.get("features", []))

    def categories(self) -> dict[str, list[str]]:
        """The values of each category that a model of tables was trained on, as text, by column."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return {one["name"]: list(one["categories"]) for one in config["features"] if "categories" in one}

    @property
    def target(self) -> str:
        """The column that a model of tables predicts."""
        return str(self.labels.get("target", ""))

    @property
    def data_version(self) -> str:
        """What stands for the version's answers: the digest of its weights, where it was made here."""
        return self.tags.get("thano.data_version") or f"version {self.version} of {self.run_id}"

    @property
    def label_type(self) -> str:
        """DuckDB type of the labels."""
        return str(self.labels.get("type", "VARCHAR"))


@dataclass(frozen=True)
class TrainingRun:
    """A training as its MLflow run shows it.

    Attributes:
        run_id: of the MLflow run.
        status: ``running``, ``finished``, ``failed`` or ``killed``.
        started: UTC.
        points: for each step with figures, in order: ``step``, ``seconds`` since the start and the figures of
            :data:`.mlflow_reader.CURVE` that were told there.
    """

    run_id: str
    status: str
    started: datetime
    points: list[dict[str, float]]
