"""The tables and models that a statement names: which they are, and whether they are there."""

from __future__ import annotations

from collections.abc import Iterable

from thano_assets.catalog.entries import (
    PREBUILT_NAME,
    nested_names,
)
from thano_assets.errors import (
    ThanoError,
    UnknownModel,
    UnknownTable,
    UnsupportedStatement,
    WorkspaceError,
    did_you_mean,
)
from thano_assets.graph.build import Graph, model_ref
from thano_assets.sql.base_names import (
    CATALOGUE_NAMES,
    EMBEDDING_BASES,
    TABLE_BASES,
    is_media_model,
)
from thano_assets.sql.grammar import MEDIA_REFUSAL
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    EncoderQuery,
    FitModel,
    Statement,
    TrainModel,
)


def check_reads(
    statement: Statement, graph: Graph, known_models: Iterable[str], known_tables: Iterable[str]
) -> None:
    """Check that every table and model that ``statement`` names exists.

    Args:
        statement: What reads.
        graph: All assets, those of the statements nested in ``statement`` among them.
        known_models: Models of the registry.
        known_tables: Tables to suggest where a name is not found.

    Raises:
        UnknownTable: a table of the query that no statement makes.
        UnknownModel: a model that is neither defined here nor in the registry (``known_models``).
        UnsupportedStatement: a model for images, audio, video or time series, or FIT MODEL of a base model.
    """
    inner = statement.inner
    ref = model_ref(inner)
    if ref is not None:
        bases = EMBEDDING_BASES if isinstance(inner, EncoderQuery) else ()
        models = sorted({*graph.model_names(), *known_models, *bases})
        folded = {name.casefold() for name in (*models, PREBUILT_NAME)}
        if ref.name.casefold() not in folded:
            if is_media_model(ref.name):
                raise UnsupportedStatement(f"{ref.name} is not a model for text.", hint=MEDIA_REFUSAL).at(
                    statement.source, ref.span.start, len(ref.name)
                )
            if isinstance(inner, FitModel) and ref.name in CATALOGUE_NAMES:
                raise _fit_base(inner)
            raise UnknownModel(
                f"There is no model {ref.name}.", hint=did_you_mean(ref.name, models, "models")
            ).at(statement.source, ref.span.start, len(ref.name))
    query = statement.rows_from
    if query is None:
        return
    if isinstance(inner, TrainModel) and inner.options.get("evaluate_on"):
        table = str(inner.options["evaluate_on"])
        if graph.relation_key(table) is None:
            place = inner.options.value_span("evaluate_on")
            raise UnknownTable(
                f"There is no table {table}, which evaluate_on names.",
                hint=did_you_mean(table, known_tables, "tables"),
            ).at(statement.source, place.start, place.end - place.start)
    for nested in query.nested:
        check_reads(nested.statement, graph, known_models, known_tables)
    names = nested_names(query)
    rendered = query.render(names)
    for read in tables_read(rendered.text).tables:
        if read.name not in names and graph.relation_key(read.name) is None:
            error: ThanoError = UnknownTable(
                f"There is no table {read.name}.", hint=did_you_mean(read.name, known_tables, "tables")
            )
            for entry, why in graph.broken.items():
                if entry.name.casefold() == read.name.casefold():
                    error = WorkspaceError(
                        f"The statement of {read.name}, statements/{entry.kind.value}/{entry.name}.sql, "
                        f"cannot be read: {why.message}",
                        hint="Put it right, or delete the file and give the statement again.",
                    )
            raise error.at(statement.source, rendered.to_source(read.offset), len(read.name))


def _fit_base(statement: FitModel) -> UnsupportedStatement:
    """The error for FIT MODEL of a base model."""
    name = statement.parent.name
    hint = f"BUILD MODEL {statement.name} USING {name} … AS SELECT … starts from a base model."
    if name in TABLE_BASES:
        hint = f"BUILD MODEL … USING {name} OPTIONS (overwrite=True) finds a new model from all rows."
    elif name in EMBEDDING_BASES:
        hint = f"Nothing has to be trained: CONVERT and SEARCH take {name} itself."
    return UnsupportedStatement(
        f"{name} is a base model; FIT MODEL goes on from a model that was built.", hint=hint
    ).at(statement.source, statement.parent.span.start, len(name))
