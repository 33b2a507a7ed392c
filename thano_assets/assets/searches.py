"""Searches: rows by falling similarity to a text, and the keywords of each row's text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from thano_assets.assets.embedders import EmbeddingModel, converted_text
from thano_assets.assets.predictions import comment
from thano_assets.assets.relations import (
    Stage,
    find_column,
    located,
    prepare,
    refuse_column,
    staged,
    text_column,
)
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables import describe_table, replace_from_stage
from thano_assets.catalog import catalog_of
from thano_assets.errors import ColumnTypeError
from thano_assets.graph import Node
from thano_assets.resources.warehouse import as_source, describe, quote
from thano_assets.sql.statements import CreateTableAs, Search

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from thano_assets.resources.warehouse import Column

#: The column that SEARCH KEYWORD adds.
KEYWORD = "keyword"

_VECTOR = re.compile(r"(?:FLOAT|DOUBLE)\[(\d+)\]")
_WINDOW = 256  # texts whose phrases are embedded together


def materialize(node: Node, runtime: Runtime) -> Outcome:
    """Search, and keep what was found as a table.

    Raises:
        UnknownModel, UnknownBaseModel, BaseModelUnavailable: there is no such model, or it cannot be had.
        UnknownColumn, ColumnTypeError, InvalidOption: the options do not fit the query's columns.
    """
    started = time.perf_counter()
    statement = node.entry.statement
    assert isinstance(statement, CreateTableAs)
    search = statement.body
    assert isinstance(search, Search)
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
        columns = describe(connection, prepare(search.query, connection, runtime))
    text = check_columns(search, columns, runtime)
    if text is None:
        outcome, searched, missing = _among_vectors(node, search, model, vector, runtime)
    else:
        outcome, searched, missing = _among_texts(node, search, model, text, vector, runtime)
    outcome.facts |= {"rows searched": searched, "rows without vector": missing}
    outcome.details["rows"] = searched + missing
    outcome.summary = (
        f"{outcome.rows:,} of {searched:,} rows, the most similar to "
        f"'{_short(str(value('search_input')))}' first, by {model.who}"
    )
    if missing:
        outcome.warn(runtime.progress, f"{missing:,} rows have no text or vector and were left out.")
    return outcome


def _among_vectors(
    node: Node, search: Search, model: EmbeddingModel, vector: np.ndarray, runtime: Runtime
) -> tuple[Outcome, int, int]:
    """Search the vectors of ``emb_col``; returns also the rows that have one, and those that have none."""
    value = search.options.value
    with runtime.warehouse.write() as connection, located(search.query):
        source = as_source(prepare(search.query, connection, runtime))
        column = vector_column(describe(connection, f"FROM {source}"), search)
        assert column is not None
        _check_size(search, column, model, len(vector))
        vectors = f"q.{quote(column.name)}"
        there, missing = connection.execute(
            f"SELECT count({vectors}), count(*) - count({vectors}) FROM {source} q"
        ).fetchall()[0]
        found = nearest(source, column.name, vector, str(value("result_col")), int(value("top_k")))
        connection.execute(f"CREATE OR REPLACE TABLE {quote(node.name)} AS {found}")
        comment(connection, node, search, f"Similarity by {model.who}", [str(value("result_col"))])
        outcome = describe_table(connection, node.name, runtime)
    outcome.facts["vectors"] = f"column {column.name}"
    return outcome, int(there), int(missing)


def nearest(source: str, column: str, vector: np.ndarray, result: str, top_k: int) -> str:
    """SQL for the rows of ``source`` by falling cosine of their vectors with ``vector``.

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
        f"SELECT * REPLACE (1 - {name} AS {name}) FROM ("
        f"SELECT q.*, array_cosine_distance({vectors}, {_literal(vector)}) AS {name} "
        f"FROM {source} q ORDER BY {name} LIMIT {top_k}) WHERE NOT isnan({name})"
    )


def _among_texts(
    node: Node, search: Search, model: EmbeddingModel, text: str, vector: np.ndarray, runtime: Runtime
) -> tuple[Outcome, int, int]:
    """Search the vectors of a text column, those that are not known yet made now."""
    value = search.options.value
    kept = Outcome(data_version="", summary="")
    size, result = len(vector), quote(str(value("result_col")))
    with staged(search.query, runtime) as stage:
        relation = model.vectors(stage, text, None, runtime, kept)
        with stage.connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE scores AS SELECT "
                f"array_cosine_similarity(CAST(p AS FLOAT[{size}]), {_literal(vector)}) AS score "
                f"FROM ({relation}) ORDER BY number"
            )
            missing = int(cursor.execute("SELECT count(*) - count(score) FROM scores").fetchall()[0][0])
        stage.connection.close()  # the warehouse attaches the file next
        select = (
            f"SELECT r.*, s.score AS {result} FROM stage.rows r POSITIONAL JOIN stage.scores s "
            f"WHERE s.score IS NOT NULL ORDER BY s.score DESC LIMIT {value('top_k')}"
        )
        with runtime.warehouse.write() as connection:
            outcome = replace_from_stage(node, runtime, stage.path, select)
            comment(connection, node, search, f"Similarity by {model.who}", [str(value("result_col"))])
    outcome.warnings = kept.warnings
    outcome.facts = {"vectors": f"of the texts of {text}", **kept.facts}
    outcome.details["rows_run"] = kept.facts["rows through the model"]
    return outcome, stage.count - missing, missing


def _check_size(search: Search, column: Column, model: EmbeddingModel, size: int) -> None:
    match = _VECTOR.fullmatch(column.type)
    assert match is not None
    if int(match[1]) != size:
        place = search.options.value_span("emb_col")
        raise ColumnTypeError(
            f"Column {column.name} holds vectors of {match[1]} numbers, those of {model.who} have {size}.",
            hint="Search with the model that made them, or CONVERT the texts with this one.",
        ).at(search.source, place.start, len(place))


def _literal(vector: np.ndarray) -> str:
    return f"CAST([{', '.join(repr(float(number)) for number in vector)}] AS FLOAT[{len(vector)}])"


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
    value = search.options.value
    stopwords, language = stopwords_of(search)
    kept = Outcome(data_version="", summary="")
    with staged(search.query, runtime) as stage:
        refuse_column(stage.columns, search, [KEYWORD])
        text = text_column(stage.columns, search)
        relation = model.vectors(stage, text.name, None, runtime, kept)
        missing = _find_keywords(stage, relation, text.name, search, stopwords, model, runtime)
        stage.connection.close()  # the warehouse attaches the file next
        select = "SELECT r.*, k.keyword FROM stage.rows r POSITIONAL JOIN stage.keywords k"
        with runtime.warehouse.write() as connection:
            outcome = replace_from_stage(node, runtime, stage.path, select)
            comment(connection, node, search, f"Keywords by {model.who}", [KEYWORD])
    found = stage.count - missing
    outcome.warnings = kept.warnings
    outcome.facts = {"rows with text": found, "stop words": stopwords or "none", **kept.facts}
    outcome.details = {"rows": stage.count, "rows_run": found}  # the phrases of each go through the model
    outcome.summary = f"keywords of {found:,} texts by {model.who}"
    if stopwords is None and value("use_stopwords"):
        told = f"There is no list of stop words for '{language}': none are left out."
        outcome.warn(runtime.progress, told)
    if missing:
        outcome.warn(runtime.progress, f"{missing:,} rows have no text: their {KEYWORD} is NULL.")
    return outcome


def _find_keywords(
    stage: Stage,
    relation: str,
    text: str,
    search: Search,
    stopwords: str | None,
    model: EmbeddingModel,
    runtime: Runtime,
) -> int:
    """Make the stage's table ``keywords``, a row for each in the rows' order; returns rows without text."""
    from thano_assets.learning.keywords import KeywordFinder, KeywordSettings

    value = search.options.value
    settings = KeywordSettings(
        ngram_range=tuple(value("ngram_range")),
        top_n=int(value("top_n")),
        diversity=float(value("diversity")),
        stopwords=stopwords,
        threshold=float(value("threshold")),
    )
    with stage.connection.cursor() as reading, stage.connection.cursor() as writing:
        reading.execute(f"CREATE TABLE embedded AS SELECT number, p FROM ({relation}) ORDER BY number")
        writing.execute("CREATE TABLE keywords (keyword JSON)")
        distinct = reading.execute("SELECT count(p) FROM embedded").fetchall()[0][0]
        if not distinct:
            writing.execute("INSERT INTO keywords SELECT NULL FROM embedded")
            return stage.count
        finder = KeywordFinder(model.load(), settings)
        with runtime.progress.task("Finding keywords", total=stage.count) as task:
            for found in _windows(reading, text, finder):
                _append(writing, found)
                task.advance(len(found))
        missing = writing.execute("SELECT count(*) - count(keyword) FROM keywords").fetchall()[0][0]
    return int(missing)


def _windows(cursor: duckdb.DuckDBPyConnection, text: str, finder: object) -> Iterator[list[str | None]]:
    """Keywords as JSON for each row, window by window; the same text of a window is looked at once."""
    from thano_assets.learning.keywords import KeywordFinder, as_json

    assert isinstance(finder, KeywordFinder)
    reader = cursor.sql(
        f"SELECT CAST(r.{quote(text)} AS VARCHAR) AS text, e.p FROM rows r POSITIONAL JOIN embedded e"
    ).to_arrow_reader(_WINDOW)
    for batch in reader:
        texts, vectors = batch.column(0).to_pylist(), batch.column(1)
        places: dict[str, int] = {}
        for place, one in enumerate(texts):
            if vectors[place].is_valid:
                places.setdefault(one, place)
        if not places:
            yield [None] * len(texts)
            continue
        wanted = vectors.take(list(places.values())).flatten().to_numpy().reshape(len(places), -1)
        found = dict(zip(places, map(as_json, finder.keywords(list(places), wanted)), strict=True))
        yield [found[one] if vectors[place].is_valid else None for place, one in enumerate(texts)]


def _append(cursor: duckdb.DuckDBPyConnection, found: list[str | None]) -> None:
    import pyarrow as pa

    cursor.register("found_keywords", pa.table({"keyword": pa.array(found, pa.string())}))
    cursor.execute("INSERT INTO keywords SELECT CAST(keyword AS JSON) FROM found_keywords")
    cursor.unregister("found_keywords")
