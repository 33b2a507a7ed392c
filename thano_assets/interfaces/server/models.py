"""Models as a service: texts, or rows of a table, in; labels and probabilities out.

Texts of requests that come at the same time go through the model together. A version is looked up again
once a second, in the background, so a promotion is followed at once and no request waits for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict

from thano_assets.assets.models.features import TableReading
from thano_assets.assets.predictions.table_predictions import model_of
from thano_assets.errors import InvalidOption, UnknownColumn, UnknownModel, UnsupportedStatement
from thano_assets.interfaces.formats import plain
from thano_assets.interfaces.server.sessions import check_right
from thano_assets.resources.environments import registry_of
from thano_assets.results import python_values

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.interfaces.server.app import Server
    from thano_assets.interfaces.server.metrics import Metrics
    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

router = APIRouter(tags=["models"])

_WAIT = 0.003  # seconds that a text waits for others, where the model is idle
_MOST_TEXTS = 512  # of one pass through a model
_LOOK = 1.0  # seconds between two looks at which version answers


class Texts(BaseModel):
    """What a model is asked: texts, or rows as objects by the names of their columns."""

    model_config = ConfigDict(extra="forbid")
    texts: list[str | None] | None = None
    rows: list[dict[str, Any]] | None = None


class Ref(NamedTuple):
    """A model's name, and a version's number or alias; without either its champion."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name} version {self.version}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


@dataclass
class _Known:
    version: ModelVersion
    looked: float
    looking: bool = False


@dataclass
class _Waiting:
    texts: list[str | None]
    answer: asyncio.Future[np.ndarray]


@dataclass
class _Lane:
    """Requests that wait for one version's model."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    at_work: bool = False


class Service:
    """Answers for the models of a workspace; lives in one event loop."""

    def __init__(self, workspace: Workspace, metrics: Metrics, most_rows: int) -> None:
        self._registry = registry_of(workspace)
        self._metrics, self._most = metrics, most_rows
        self._known: dict[Ref, _Known] = {}
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # One pass at a time: a model keeps all cores busy by itself.
        self._models = ThreadPoolExecutor(1, "thano-models")

    def close(self) -> None:
        """End the thread that the models run in."""
        self._models.shutdown(wait=False, cancel_futures=True)

    def names(self) -> list[str]:
        """The models that there are."""
        return self._registry.models()

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model.

        Raises:
            UnknownModel: there is none.
        """
        found = self._registry.versions(name)
        if not found:
            raise UnknownModel(f"There is no model {name}.", hint="GET /api/v1/models lists what is there.")
        return found

    async def version(self, ref: Ref) -> ModelVersion:
        """The version that answers for ``ref`` at present.

        Raises:
            UnknownModel: there is none.
        """
        known = self._known.get(ref)
        if known is None:
            known = self._known[ref] = _Known(await asyncio.to_thread(self._resolve, ref), time.monotonic())
        elif time.monotonic() - known.looked > _LOOK and not known.looking:
            known.looking = True
            self._in_background(self._look_again(ref, known))
        return known.version

    async def _look_again(self, ref: Ref, known: _Known) -> None:
        try:
            found = await asyncio.to_thread(self._resolve, ref)
            if found.version != known.version.version and not found.task:
                # Loaded before it answers, so that nobody waits for that.
                await asyncio.get_running_loop().run_in_executor(self._models, _predictor, found)
            known.version = found
        except UnknownModel:
            self._known.pop(ref, None)
        finally:
            known.looked, known.looking = time.monotonic(), False

    def _resolve(self, ref: Ref) -> ModelVersion:
        found = self._registry.resolve(ref.name, ref.version, ref.alias)
        if found is None:
            raise UnknownModel(f"There is no model {ref}.", hint="GET /api/v1/models lists what is there.")
        if found.is_base:
            raise UnsupportedStatement(
                f"{ref} is a base model: it gives no labels.", hint="BUILD MODEL does."
            )
        return found

    async def predict(self, ref: Ref, asked: Texts) -> dict[str, Any]:
        """Answers of a model, one for each text or row, in their order.

        Raises:
            InvalidOption: neither texts nor rows, or both, or too many.
            UnknownColumn: rows lack a column that the model reads.
        """
        version = await self.version(ref)
        given = asked.texts if asked.texts is not None else asked.rows
        if given is None or (asked.texts is not None and asked.rows is not None):
            raise InvalidOption("A model is asked with either texts or rows.")
        if len(given) > self._most:
            raise InvalidOption(
                f"{len(given):,} rows are more than {self._most:,}.",
                hint="Ask in parts; max_rows under [server] in thano.toml is the limit.",
            )
        if version.task:
            if asked.rows is None:
                raise InvalidOption(f"{version.name} reads columns: give rows, not texts.")
            found = await asyncio.get_running_loop().run_in_executor(
                self._models, _of_rows, version, asked.rows
            )
        else:
            texts = asked.texts if asked.texts is not None else _texts_of(version, asked.rows or [])
            "".join(text or "" for text in texts).encode()  # half a character would end the others' pass too
            found = await self._answers(version, texts) if texts else np.empty((0, len(version.classes)))
        self._metrics.answered(version, len(given))
        return {
            "model": version.name,
            "version": version.version,
            "predictions": _predictions(version, found),
        }

    async def _answers(self, version: ModelVersion, texts: list[str | None]) -> np.ndarray:
        lane = self._lanes.setdefault((version.name, version.version), _Lane())
        waiting = _Waiting(texts, asyncio.get_running_loop().create_future())
        lane.waiting.append(waiting)
        self._metrics.queue.labels(version.name).inc(len(texts))
        if not lane.at_work:
            lane.at_work = True
            self._in_background(self._work(version, lane))
        return await waiting.answer

    async def _work(self, version: ModelVersion, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        try:
            while lane.waiting:
                if len(lane.waiting) > 1:  # more may be on their way
                    await asyncio.sleep(_WAIT)
                together: list[_Waiting] = []
                while lane.waiting and (
                    not together
                    or sum(len(one.texts) for one in together) + len(lane.waiting[0].texts) <= _MOST_TEXTS
                ):
                    together.append(lane.waiting.popleft())
                texts = [text for one in together for text in one.texts]
                self._metrics.queue.labels(version.name).dec(len(texts))
                self._metrics.batch.labels(version.name).observe(len(texts))
                try:
                    found = await loop.run_in_executor(self._models, _of_texts, version, texts)
                except Exception as error:
                    for one in together:
                        if not one.answer.done():
                            one.answer.set_exception(error)
                    continue
                start = 0
                for one in together:
                    if not one.answer.done():  # its client may have gone
                        one.answer.set_result(found[start : start + len(one.texts)])
                    start += len(one.texts)
        finally:
            lane.at_work = False

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _predictor(version: ModelVersion) -> Any:
    from thano_assets.learning.predict import Predictor

    return Predictor.cached(version.path)


def _of_texts(version: ModelVersion, texts: list[str | None]) -> np.ndarray:
    found: np.ndarray = _predictor(version).predict(texts)
    return found


def _texts_of(version: ModelVersion, rows: list[dict[str, Any]]) -> list[str | None]:
    column = str(version.labels.get("text_col") or "text")
    found: list[str | None] = []
    for row in rows:
        name = next((name for name in row if name.casefold() == column.casefold()), None)
        if name is None:
            raise UnknownColumn(f"A row has no column {column}, which {version.name} reads.")
        value = row[name]
        if value is not None and not isinstance(value, str):
            raise InvalidOption(f"{column} of a row is no text: {json.dumps(value)[:60]}.")
        found.append(value)
    return found


def _of_rows(version: ModelVersion, rows: list[dict[str, Any]]) -> np.ndarray:
    import duckdb
    import pyarrow as pa

    reading = TableReading.of(version.features)
    names = [name for name in reading.names if not any(name in row for row in rows)] if rows else []
    if names:
        raise UnknownColumn(f"No row has the column {names[0]}, which {version.name} reads.")
    given: pa.Table = pa.Table.from_pylist([{name: row.get(name) for name in reading.names} for row in rows])
    with duckdb.connect() as connection:
        connection.register("rows", given)
        try:
            read = connection.sql(f"SELECT {reading.select} FROM rows").to_arrow_table()
        except duckdb.Error as error:
            raise InvalidOption(f"The rows do not fit the model: {str(error).splitlines()[0]}") from error
    found: np.ndarray = model_of(version).predict(read)
    return found


def _predictions(version: ModelVersion, found: np.ndarray) -> list[dict[str, Any]]:
    if version.task == "regression":
        return [{"prediction": float(value)} for value in found[:, 0]]
    labels = _labels(tuple(version.classes), version.label_type)
    answers: list[dict[str, Any]] = []
    for row in found:
        if np.isnan(row).any():  # a text that is missing or blank
            answers.append({"label": None, "probability": None, "probabilities": None})
            continue
        best = int(row.argmax())
        answers.append(
            {
                "label": labels[best],
                "probability": float(row[best]),
                "probabilities": {str(name): float(p) for name, p in zip(version.classes, row, strict=True)},
            }
        )
    return answers


@lru_cache(maxsize=64)
def _labels(classes: tuple[str, ...], label_type: str) -> list[Any]:
    """The classes in the type that the labels had."""
    import duckdb

    with duckdb.connect() as connection:
        query = f"SELECT CAST(unnest(?) AS {label_type}) AS label"
        values: pa.Table = connection.sql(query, params=[list(classes)]).to_arrow_table()
    return [plain(value) for value in python_values(values.column(0))]


def _described(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "kind": version.kind,
        "classes": version.classes if version.task != "regression" else [],
        "label_type": version.label_type,
        "text_col": None if version.task else version.labels.get("text_col"),
        "columns": [feature["name"] for feature in version.features],
        "metrics": version.metrics,
        "created": version.created.isoformat(),
        "mlflow_run_id": version.run_id,
    }


@router.get("/models", summary="Models")
def models(request: Request) -> dict[str, Any]:
    """The models that there are, and which version of each answers."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A model")
    found = []
    for name in server.service.names():
        versions = server.service.versions(name)
        champion = next((version for version in versions if "champion" in version.aliases), None)
        found.append(
            {
                "name": name,
                "versions": [version.version for version in versions],
                "champion": champion and champion.version,
                "kind": versions[-1].kind,
            }
        )
    return {"models": found, "total": len(found)}


@router.get("/models/{name}", summary="A model's versions")
def model(request: Request, name: str) -> dict[str, Any]:
    """A model's versions, oldest first: what each reads, its classes, metrics and aliases."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A model")
    return {"name": name, "versions": [_described(version) for version in server.service.versions(name)]}


@router.post("/models/{name}/predict", summary="Ask a model")
async def predict(request: Request, name: str, asked: Annotated[Texts, Body()]) -> dict[str, Any]:
    """Labels and probabilities of texts or rows, by the champion or by ``NAME@alias``."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A prediction")
    bare, _, alias = name.partition("@")
    return await server.service.predict(Ref(bare, None, alias or None), asked)


@router.post("/models/{name}/versions/{version}/predict", summary="Ask a version of a model")
async def predict_version(
    request: Request, name: str, version: int, asked: Annotated[Texts, Body()]
) -> dict[str, Any]:
    """Labels and probabilities of texts or rows, by one version."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A prediction")
    return await server.service.predict(Ref(name, version), asked)
