"""Searches: rows by falling similarity to a text, and the keywords of each row's text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thano_assets.assets.kind import AskedModel, AssetKind, Reads, described, shown_as
from thano_assets.assets.predictions.embedders import EmbeddingModel, converted_text
from thano_assets.assets.predictions.keyword_cache import find_keywords
from thano_assets.assets.predictions.prediction_cache import MOST_VECTOR_BYTES, unanswered
from thano_assets.assets.predictions.predictions import comment
from thano_assets.assets.predictions.vector_index import (
    Outdated,
    PlainRows,
    SearchInFile,
    is_numbered,
    opened,
    staged_vectors,
    table_of,
    vector_literal,
    vectors_of,
)
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.column_lineage import ColumnLineage, with_vectors
from thano_assets.assets.tables.queries import (
    Stage,
    find_column,
    located,
    prepare,
    refuse_column,
    refuse_twice,
    staged,
    text_column,
)
from thano_assets.assets.tables.tables import describe_table, replace_from_stage
from thano_assets.catalog import catalog_of
from thano_assets.errors import ColumnTypeError
from thano_assets.graph import Node, NodeKind
from thano_assets.resources.dagster_home import INFERENCE
from thano_assets.resources.warehouse import as_source, describe, quote
from thano_assets.sql.rowwise import ROW
from thano_assets.sql.statements import Search

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from thano_assets.learning.nearest import VectorFile
    from thano_assets.resources.warehouse import Column

#: The column that SEARCH KEYWORD adds.
KEYWORD = "keyword"

_VECTOR = re.compile(r"(?:FLOAT|DOUBLE)\[(\d+)\]")


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Search, and keep what was found as a table.

    Raises:
        UnknownModel, UnknownBaseModel, BaseModelUnavailable: there is no such model, or it cannot be had.
        UnknownColumn, ColumnTypeError, InvalidOption: the options do not fit the query's columns.
    """
    started = time.perf_counter()
    search = node.statement(Search)
    model = EmbeddingModel.of(search, runtime)
    outcome = (_text if search.what == "TEXT" else _keywords)(node, search, model, runtime)
    outcome.facts = {
        **model.told(),
        **outcome.facts,
        "seconds": round(time.perf_counter() - started, 1),
    }
    outcome.details |= model.details()
    outcome.links = model.links(runtime)
    return outcome


def added_columns(search: Search) -> list[str]:
    """Names of the columns that SEARCH adds to those of its query."""
    return [str(search.options.value("result_col"))] if search.what == "TEXT" else [KEYWORD]


def vector_column(columns: list[Column], search: Search) -> Column | None:
    """The column that ``emb_col`` names, ``None`` where the query has none of that name.

    Raises:
        ColumnTypeError: it holds no vectors of one length.
    """
    name = str(search.options["emb_col"])
    column = next((one for one in columns if one.name.casefold() == name.casefold()), None)
    if column is not None and not _VECTOR.fullmatch(column.type):
        place = search.options.value_span("emb_col")
        raise ColumnTypeError(
            f"Column {column.name} is {column.type}, not vectors of one length.",
            hint="CONVERT makes FLOAT[n]; a list becomes that by CAST(column AS FLOAT[n]) in the query.",
        ).at(search.source, place.start, len(place))
    return column


def check_columns(search: Search, columns: list[Column], runtime: Runtime) -> str | None:
    """Check the columns of the search's query against its options.

    Returns:
        The column with the texts; ``None`` where ``emb_col`` names one with vectors.

    Raises:
        UnknownColumn, ColumnTypeError, InvalidOption: they do not fit.
    """
    refuse_column(columns, search, added_columns(search))
    if search.what == "KEYWORD" or not search.options.get("emb_col"):
        return text_column(columns, search).name
    if vector_column(columns, search) is not None:
        return None
    text = converted_text(search, catalog_of(runtime.workspace))
    known = next((one.name for one in columns if one.name.casefold() == str(text).casefold()), None)
    if known is None:
        try:
            find_column(columns, search, "emb_col")
        except Exception as error:
            hint = (
                "CONVERT of the same query by the same model makes it; without emb_col, text_col is embedded."
            )
            error.hint = hint  # type: ignore[attr-defined]
            raise
    return known


# ------------------------------------------------------------------------------------------- SEARCH TEXT


def _text(node: Node, search: Search, model: EmbeddingModel, runtime: Runtime) -> Outcome:
    value = search.options.value
    vector = model.vector(str(value("search_input")), runtime.progress)
    with runtime.warehouse.read() as connection, located(search.query):
        sql = prepare(search.query, connection, runtime)
        columns = describe(connection, sql)
        refuse_twice(columns, search.query)
        rows = PlainRows.of(sql, node, connection, runtime)
    text = check_columns(search, columns, runtime)
    asked = _Asked(node, search, model, vector, rows, runtime)
    if text is None:
        column = vector_column(columns, search)
        assert column is not None
        _check_size(search, column, model, len(vector))
        outcome, searched, missing = asked.among_vectors(column.name)
    else:
        outcome, searched, missing = asked.among_texts(text)
    outcome.facts |= {"rows searched": searched, "rows without vector": missing}
    outcome.details["rows"] = searched + missing
    outcome.summary = (
        f"{outcome.rows:,} of {searched:,} rows, the most similar to "
        f"'{_short(str(value('search_input')))}' first, by {model.who}"
    )
    if missing:
        outcome.warn(runtime.progress, f"{missing:,} rows have no text or vector and were left out.")
    return outcome


@dataclass(frozen=True)
class _Asked:
    """A SEARCH TEXT with the vector of what is searched for; each way gives the outcome, the number of rows
    that were searched, and that of rows without a vector."""

    node: Node
    search: Search
    model: EmbeddingModel
    vector: np.ndarray
    rows: PlainRows | None
    runtime: Runtime

    @property
    def result(self) -> str:
        return str(self.search.options.value("result_col"))

    @property
    def top_k(self) -> int:
        wanted = self.search.options.value("top_k")
        return 2**63 - 1 if wanted is None else int(wanted)

    def among_vectors(self, column: str) -> tuple[Outcome, int, int]:
        """Search the vectors of a column."""
        told = {"vectors": f"column {column}"}
        if self.rows is not None:
            file = vectors_of(self.rows, column, len(self.vector), self.model.answers, self.runtime)
            found = self._in_file(file, column, texts=False)
            if found is not None:
                found[0].facts |= told
                return found
        with self.runtime.warehouse.write() as connection, located(self.search.query):
            source = as_source(prepare(self.search.query, connection, self.runtime))
            vectors = f"q.{quote(column)}"
            there, missing = connection.execute(
                f"SELECT count({vectors}), count(*) - count({vectors}) FROM {source} q"
            ).fetchall()[0]
            outcome = self._made(connection, nearest(source, column, self.vector, self.result, self.top_k))
        outcome.facts |= told
        return outcome, int(there), int(missing)

    def among_texts(self, text: str) -> tuple[Outcome, int, int]:
        """Search the vectors of a text column, those that are not known yet made now."""
        path, told = None, {"vectors": f"of the texts of {text}"}
        if self.rows is not None and self.rows.query.column(text) is not None:
            path = self.rows.path(text, "texts", self.model.answers)
            file = opened(path, self.model.answers)
            found = self._in_file(file, text, texts=True)
            if found is not None and file is not None:
                self._retell(found[0], file.told)
                found[0].facts |= told
                return found
        kept = Outcome(data_version="", summary="")
        with staged(self.search.query, self.runtime) as stage:
            relation = self.model.vectors(stage, text, None, self.runtime, kept)
            described = {"facts": kept.facts, "warnings": kept.warnings}
            with self._staged_file(stage, relation, text, path, described) as file:
                missing = file.missing
                stage.connection.register("found_rows", table_of(file.nearest(self.vector, self.top_k)))
            stage.connection.execute("CREATE TABLE found AS FROM found_rows")
            stage.connection.close()  # the warehouse attaches the file next
            select = (
                f"SELECT r.*, f.score AS {quote(self.result)} FROM stage.rows r "
                "JOIN stage.found f ON r.rowid = f.row ORDER BY f.place"
            )
            with self.runtime.warehouse.write() as connection:
                outcome = replace_from_stage(self.node, self.runtime, stage.path, select)
                self._comment(connection)
        outcome.warnings = kept.warnings
        outcome.facts = {**told, **kept.facts}
        outcome.details["rows_run"] = kept.facts["rows through the model"]
        return outcome, stage.count - missing, missing

    def _in_file(
        self, file: VectorFile | None, column: str, *, texts: bool
    ) -> tuple[Outcome, int, int] | None:
        """Search in a file; ``None`` without one, or where it does not fit the table."""
        if file is None or self.rows is None:
            return None
        asked = SearchInFile(self.rows, file, column, self.vector, self.top_k)
        same = asked.same_texts() if texts else asked.same_vectors()
        try:
            with self.runtime.warehouse.write() as connection:
                if not self.rows.still(self.runtime):
                    raise Outdated
                with asked.found(connection, self.result, same) as (query, searched, missing):
                    return self._made(connection, query), searched, missing
        except Outdated:
            if file.path.parent == self.model.answers.folder:  # not production's, in an environment
                file.discard()
            return None

    @contextmanager
    def _staged_file(
        self, stage: Stage, relation: str, text: str, path: Path | None, told: dict[str, Any]
    ) -> Iterator[VectorFile]:
        """The file of the staged rows' vectors: for later searches where it may be, else for this one."""
        size, folder = len(self.vector), self.model.answers.folder
        if (
            path is not None
            and self.rows is not None
            and stage.count * size * 4 <= MOST_VECTOR_BYTES
            and is_numbered(self.rows, stage.count, self.runtime)
        ):
            file = None
            with suppress(OSError):  # the folder may be full or closed; the search goes on
                folder.mkdir(parents=True, exist_ok=True)
                file = staged_vectors(stage, relation, text, size, path, told)
            if file is not None:
                self.model.answers.tidy(self.runtime.workspace)
                yield file
                return
        passing = Path(f"{stage.path}.vectors")
        try:
            yield staged_vectors(stage, relation, text, size, passing, told)
        finally:
            passing.unlink(missing_ok=True)

    def _made(self, connection: duckdb.DuckDBPyConnection, query: str) -> Outcome:
        """Keep the rows of ``query`` as the search's table."""
        connection.execute(f"CREATE OR REPLACE TABLE {quote(self.node.name)} AS {query}")
        self._comment(connection)
        return describe_table(connection, self.node.name, self.runtime)

    def _comment(self, connection: duckdb.DuckDBPyConnection) -> None:
        comment(connection, self.node, self.search, f"Similarity by {self.model.who}", [self.result])

    def _retell(self, outcome: Outcome, told: dict[str, Any]) -> None:
        """Say what was said when the texts were embedded."""
        facts = dict(told["facts"])
        known = facts.get("texts known before", 0) + facts.get("rows through the model", 0)
        outcome.facts = facts | {"rows through the model": 0, "texts known before": known}
        outcome.details["rows_run"] = 0
        for warning in told["warnings"]:
            outcome.warn(self.runtime.progress, warning)


def nearest(source: str, column: str, vector: np.ndarray, result: str, top_k: int) -> str:
    """SQL for the rows of ``source`` by falling cosine of their vectors with ``vector``.

    Equally near rows come in the order of ``source``.

    Args:
        source: what may stand after FROM.
        column: the column with the vectors, FLOAT[n] or DOUBLE[n].
        vector: of shape (n,).
        result: name of the column with the cosine.
        top_k: most rows.
    """
    vectors = f"CAST(q.{quote(column)} AS FLOAT[{len(vector)}])"
    name = quote(result)
    # By rising distance: that of a vector of zeros is no number, and so comes last. A condition on it inside
    # would have DuckDB compute the distances twice.
    return (
        f"SELECT * EXCLUDE ({ROW}) REPLACE (1 - {name} AS {name}) FROM ("
        f"SELECT q.*, array_cosine_distance({vectors}, {vector_literal(vector)}) AS {name}, "
        f"row_number() OVER () AS {ROW} FROM {source} q ORDER BY {name}, {ROW} LIMIT {top_k}) "
        f"WHERE NOT isnan({name})"
    )


def _check_size(search: Search, column: Column, model: EmbeddingModel, size: int) -> None:
    match = _VECTOR.fullmatch(column.type)
    assert match is not None
    if int(match[1]) != size:
        place = search.options.value_span("emb_col")
        raise ColumnTypeError(
            f"Column {column.name} holds vectors of {match[1]} numbers, those of {model.who} have {size}.",
            hint="Search with the model that made them, or CONVERT the texts with this one.",
        ).at(search.source, place.start, len(place))


def _short(text: str, limit: int = 60) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


# ---------------------------------------------------------------------------------------- SEARCH KEYWORD


def stopwords_of(search: Search) -> tuple[str | None, str]:
    """The language whose stop words are left out, ``None`` for none, and the language of the texts."""
    language = str(search.options.value("lang") or ("ko" if search.model.name == "SBERTKo" else "en")).lower()
    language = language.partition("-")[0].partition("_")[0]
    return ("en" if language == "en" and search.options.value("use_stopwords") else None), language


def _keywords(node: Node, search: Search, model: EmbeddingModel, runtime: Runtime) -> Outcome:
    from thano_assets.learning.keywords import KeywordSettings

    value = search.options.value
    stopwords, language = stopwords_of(search)
    settings = KeywordSettings(
        ngram_range=tuple(value("ngram_range")),
        top_n=value("top_n"),
        diversity=float(value("diversity")),
        stopwords=stopwords,
        threshold=float(value("threshold")),
    )
    kept = Outcome(data_version="", summary="")
    with staged(search.query, runtime) as stage:
        refuse_column(stage.columns, search, [KEYWORD])
        text = text_column(stage.columns, search)
        missing = find_keywords(stage, text.name, model, settings, runtime, kept)
        stage.connection.close()  # the warehouse attaches the file next
        select = "SELECT r.*, k.keyword FROM stage.rows r POSITIONAL JOIN stage.keywords k"
        with runtime.warehouse.write() as connection:
            outcome = replace_from_stage(node, runtime, stage.path, select)
            comment(connection, node, search, f"Keywords by {model.who}", [KEYWORD])
    found = stage.count - missing
    outcome.warnings = kept.warnings
    outcome.facts = {"rows with text": found, "stop words": stopwords or "none", **kept.facts}
    outcome.details = {"rows": stage.count, "rows_run": kept.facts["texts searched for keywords"]}
    outcome.summary = f"keywords of {found:,} texts by {model.who}"
    if stopwords is None and value("use_stopwords"):
        told = f"There is no list of stop words for '{language}': none are left out."
        outcome.warn(runtime.progress, told)
    if missing:
        outcome.warn(runtime.progress, f"{missing:,} rows have no text: their {KEYWORD} is NULL.")
    return outcome


def _lineage(node: Node, columns: Sequence[str], runtime: Runtime) -> ColumnLineage:
    statement = node.statement(Search)
    return with_vectors(statement, added_columns(statement), columns, runtime)


def _check_columns(search: Search, columns: list[Column], asked: AskedModel | None, runtime: Runtime) -> None:
    check_columns(search, columns, runtime)


def _texts_to_run(statement: Search, reads: Reads, runtime: Runtime) -> int:
    if statement.what == "KEYWORD":
        return reads.count(f"({reads.sql})")
    text = check_columns(statement, describe(reads.connection, f"({reads.sql})"), runtime)
    answers = EmbeddingModel.of(statement, runtime, network=False).answers
    return 0 if text is None else unanswered(reads.connection, reads.sql, text, answers)


KIND = AssetKind(
    NodeKind.SEARCH,
    materialize,
    description=described("The table {name}: what a search found among the query's rows."),
    icons=shown_as("duckdb", "huggingface"),
    pool=INFERENCE,
    lineage=_lineage,
    check_columns=_check_columns,
    texts_to_run=_texts_to_run,
)
