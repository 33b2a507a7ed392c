"""What CONVERT and SEARCH share: the model that embeds, its kept vectors, and how a search finds its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.predictions.prediction_cache import PredictionCache, text_key
from thano_assets.assets.predictions.scoring import Answerer, answered, answering_version
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.catalog import EntryKind, catalog_of
from thano_assets.errors import BaseModelUnavailable, ThanoError
from thano_assets.graph.build import model_ref
from thano_assets.resources import base_models
from thano_assets.resources.model_version import ModelVersion
from thano_assets.sql.statements import Convert, CreateTableAs, EncoderQuery, Search

if TYPE_CHECKING:
    import numpy as np

    from thano_assets.assets.tables.queries import Stage
    from thano_assets.catalog.overlay import Entries
    from thano_assets.progress import Progress
    from thano_assets.resources.resolved_base import ResolvedBase
    from thano_assets.resources.workspace import Workspace


#: What DuckDB may hold of the vectors of a statement; the rest lies in files of the moment.
STAGE_MEMORY = "512MB"


@dataclass(frozen=True)
class EmbeddingModel:
    """The model that a CONVERT or SEARCH names: a registered version, or a base model.

    Attributes:
        who: as a person reads it: ``SBERTEn``, ``reviews VERSION 3``.
        version: the registered version, ``None`` for a base model.
        base: the base model, ``None`` for a registered version.
        answers: its kept vectors.
    """

    who: str
    version: ModelVersion | None
    base: ResolvedBase | None
    answers: PredictionCache
    _folder: Callable[[], Path]

    @classmethod
    def of(cls, statement: EncoderQuery, runtime: Runtime, *, network: bool = True) -> EmbeddingModel:
        """The model of ``statement``.

        Raises:
            UnknownModel: the registry has no such version.
            UnknownBaseModel, BaseModelUnavailable, UnsupportedStatement, PathRefused: of the base model.
        """
        workspace = runtime.workspace
        if model_ref(statement) is not None:
            version = answering_version(statement, runtime)
            who = f"{version.name} VERSION {version.version}"
            answers = PredictionCache.of_vectors(version, workspace)
            return cls(who, version, None, answers, lambda: version.path)
        ref = statement.model
        try:
            base = base_of(statement, workspace, network=network)
        except ThanoError as error:
            raise error.at(statement.source, ref.span.start, len(ref.span)) from None
        answers = PredictionCache.of_vectors(base.identity, workspace)
        return cls(base.name, None, base, answers, lambda: base.folder(runtime.progress))

    @property
    def identity(self) -> str:
        """The base model's identity."""
        assert self.base is not None
        return self.base.identity

    @property
    def folder(self) -> Path:
        """The Hugging Face folder; a base model is fetched first where it has to be."""
        return self._folder()

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        try:
            return int(config["hidden_size"])
        except KeyError:
            raise BaseModelUnavailable(
                f"{self.who} is no encoder of text: its configuration has no hidden_size.",
                hint="USING SBERTEn makes embeddings.",
            ) from None

    def vectors(
        self, stage: Stage, text: str, batch_size: int | None, runtime: Runtime, outcome: Outcome
    ) -> str:
        """Embed the staged rows; see :func:`~thano_assets.assets.predictions.scoring.answered`."""
        if self.base is not None and self.base.note:
            runtime.progress.message(self.base.note)
        stage.connection.execute(f"SET memory_limit = '{STAGE_MEMORY}'")
        return answered(stage, text, Answerer(self.answers, self.load), batch_size, runtime, outcome)

    def load(self) -> Any:
        """The loaded :class:`~thano_assets.learning.embed.Embedder`, kept warm in this process."""
        from thano_assets.learning.embed import Embedder

        return Embedder.cached(self.folder)

    def details(self) -> dict[str, Any]:
        """What later plans compare with."""
        if self.version is not None:
            return {
                "model": self.version.name,
                "version": self.version.version,
                "model_data_version": self.version.data_version,
            }
        return {} if self.base is None else {"base": self.base.identity}

    def links(self, runtime: Runtime) -> dict[str, str]:
        """Addresses for the asset's page."""
        if self.version is None:
            return {}
        return {"MLflow model": runtime.registry.model_url(self.version.name, self.version.version)}

    def told(self) -> dict[str, Any]:
        """Facts for the asset's page."""
        if self.base is None:
            return {"model": self.who}
        note = {"note": self.base.note} if self.base.note else {}
        return {"model": self.who, "base model": self.base.describe(), **note}

    def vector(self, text: str, progress: Progress) -> np.ndarray:
        """The vector of one text, float32 of shape (size,); known ones do not go through the model."""
        import duckdb
        import numpy as np

        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE asked AS SELECT CAST($1 AS VARCHAR) AS text", [text])
            self.answers.recall(connection, f"SELECT {text_key('text')} AS key FROM asked", "known")
            found = connection.execute("SELECT p FROM known").fetchall()
            if found:
                return np.asarray(found[0][0], dtype=np.float32)
            progress.message(f"Embedding what is searched for with {self.who}")
            vector: np.ndarray = self.load().embed([text])[0]
            connection.execute(
                f"CREATE TABLE new AS SELECT {text_key('text')} AS key, CAST($1 AS FLOAT[]) AS p, "
                "CAST(0 AS INTEGER) AS cut FROM asked",
                [vector.tolist()],
            )
            try:
                self.answers.keep(connection, "new")
            except (OSError, duckdb.IOException) as error:  # a saving less, not an answer less
                progress.warning(f"The vector could not be kept for later: {str(error).splitlines()[0]}")
        return vector


def base_of(statement: EncoderQuery, workspace: Workspace, *, network: bool = True) -> ResolvedBase:
    """The base model that ``statement`` names.

    Raises:
        UnknownBaseModel, BaseModelUnavailable, UnsupportedStatement, PathRefused: it cannot be had.
    """
    ref = statement.model
    return base_models.resolve(
        ref.name, quoted=ref.quoted, workspace=workspace, network=network, purpose="embed"
    )


def converted_text(search: Search, catalog: Entries) -> str | None:
    """The text column of the CONVERT that made ``emb_col`` from the very rows that are searched.

    A table is what its statement says, so CONVERT adds no column to it; a search of the same query by the
    same model finds the vectors by their texts.
    """
    wanted = str(search.options.get("emb_col") or "").casefold()
    query = search.query.canonical()
    for name in catalog.names(EntryKind.EMBEDDING) if wanted else ():
        entry = catalog.relation(name)
        try:
            statement = entry.statement if entry is not None else None
        except ThanoError:
            continue
        convert = statement.body if isinstance(statement, CreateTableAs) else None
        if (
            isinstance(convert, Convert)
            and str(convert.options.value("result_col")).casefold() == wanted
            and str(convert.model) == str(search.model)
            and convert.query.canonical() == query
        ):
            return str(convert.options.value("text_col"))
    return None


def content_of(statement: EncoderQuery, workspace: Workspace, *, network: bool = False) -> str:
    """What a CONVERT or SEARCH reads from outside the graph, as it is now.

    On the first line the identity of its base model, then the text column whose vectors are searched.
    """
    content = ""
    if model_ref(statement) is None:
        try:
            content = base_of(statement, workspace, network=network).identity
        except ThanoError:
            content = "not on this machine"
    if isinstance(statement, Search) and statement.options.get("emb_col"):
        text = converted_text(statement, catalog_of(workspace))
        content += "" if text is None else f"\n{text}"
    return content
