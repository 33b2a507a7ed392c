"""What can be found before any work starts: names taken, files, columns, models that cannot be had."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from thano_assets.assets.kind import AskedModel, answering
from thano_assets.assets.models.bases import asked_of_base, base_of
from thano_assets.assets.tables.queries import located, prepare, refuse_twice
from thano_assets.catalog import entry_of
from thano_assets.catalog.entries import (
    PREBUILT_NAMES,
)
from thano_assets.errors import (
    InvalidOption,
    NameExists,
    ThanoError,
    UnknownModel,
    UnsupportedStatement,
    did_you_mean,
)
from thano_assets.graph import NodeKind
from thano_assets.graph.build import model_ref
from thano_assets.resources.warehouse import describe, table_names
from thano_assets.sql.base_names import is_media_model
from thano_assets.sql.cursor import LONGEST_NAME, file_name_size
from thano_assets.sql.grammar import MEDIA_REFUSAL
from thano_assets.sql.query import Query
from thano_assets.sql.statements import (
    BuildBaseModel,
    BuildModel,
    ClassifierQuery,
    Convert,
    Copy,
    CreateTableAs,
    EncoderQuery,
    ExplainPredict,
    FitModel,
    GetThanosql,
    ModelRef,
    Search,
    Statement,
    TrainModel,
    UploadModel,
)

if TYPE_CHECKING:
    from thano_assets.assets.runtime import Runtime
from thano_assets.planning.binding import Bound, parts

_MODEL_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|%]{1,200}")


def preflight(bound: Bound, runtime: Runtime, *, again: bool = False) -> None:
    """Find what can be found before any work starts: names taken, files, columns, base models.

    Args:
        bound: The statement.
        runtime: The workspace's resources.
        again: Whether the name is taken by this very definition, which a plan found to be out of date.

    Raises:
        NameExists: and overwriting was not asked for.
        UnknownModel: a version or alias that the model does not have.
        PathRefused, DataFileError: COPY's file, or UPLOAD MODEL's folder.
        UnknownColumn, ColumnTypeError, InvalidOption: options that do not fit the query.
        UnknownBaseModel, BaseModelUnavailable: ``USING`` names no base model, or one that cannot be had now.
        UnsupportedStatement: a base model where a classifier is meant, or the other way round.
    """
    from thano_assets.assets.predictions.scoring import answering_version

    statement = bound.statement
    check_names(bound, runtime, again=again)
    if isinstance(statement, Copy):
        _check_source(statement, runtime)
    if isinstance(statement, UploadModel):
        from thano_assets.resources import uploads

        try:
            uploads.find(runtime.workspace, statement.path)
        except ThanoError as error:
            raise error.at(statement.source, statement.path_span.start, len(statement.path_span)) from None
    if isinstance(statement, BuildModel):
        _check_base(statement, bound, runtime)
    if isinstance(statement, TrainModel):
        from thano_assets.assets.models.pretrained_models import pretraining_settings
        from thano_assets.assets.models.training_inputs import trainer_of

        try:
            if isinstance(statement, BuildBaseModel):
                pretraining_settings(statement)
            else:
                trainer_of(statement).settings(statement)
        except ThanoError as error:
            raise error.at(statement.source, statement.span.start) from None
        if statement.options.get("evaluate_on") is not None:
            from thano_assets.assets.models.judging_rows import check_evaluation_table

            check_evaluation_table(statement, runtime)
    for part in parts(statement):
        if isinstance(part, ClassifierQuery):
            if part.model.version or part.model.alias:
                answering_version(part, runtime)
            elif (champion := runtime.registry.champion(part.model.name)) is not None and champion.is_base:
                raise asked_of_base(part)
        _check_purpose(part, bound, runtime)
        if isinstance(part, EncoderQuery):
            _check_embedding(part, runtime)
        _check_columns(part, bound, runtime)


def _check_base(statement: BuildModel, bound: Bound, runtime: Runtime) -> None:
    """Check that the base can be had; one that is built in the same run is there by then."""
    key = bound.graph.base_key(statement)
    if key in bound.graph.nodes and runtime.registry.champion(statement.base) is None:
        return
    try:
        base_of(statement, runtime.registry, runtime.workspace)
    except ThanoError as error:
        raise error.at(statement.source, statement.base_span.start, len(statement.base)) from None


def _check_purpose(part: Statement, bound: Bound, runtime: Runtime) -> None:
    """Check that a statement about texts does not ask a model of tables, be it trained or only planned."""
    from thano_assets.assets.predictions.scoring import refuse_tables

    ref = model_ref(part)
    if ref is None or not isinstance(part, (ExplainPredict, Convert, Search, FitModel)):
        return
    if _task(ref, bound, runtime) is not None:
        refuse_tables(part, str(ref))


def _task(ref: ModelRef, bound: Bound, runtime: Runtime) -> str | None:
    """What a model of tables predicts; ``None`` of a model of texts, and where nobody knows yet."""
    if planned := _planned(ref, bound):
        return planned.task if isinstance(planned, BuildModel) else None
    version = runtime.registry.resolve(ref.name, version=ref.version, alias=ref.alias)
    if version is not None:
        return version.task
    key = bound.graph.model_key(ref.name)
    statement = bound.graph.nodes[key].entry.statement if key in bound.graph.nodes else None
    return statement.task if isinstance(statement, BuildModel) else None


def _planned(ref: ModelRef, bound: Bound) -> Statement | None:
    """The statement that makes the model again before it is asked."""
    key = bound.graph.model_key(ref.name)
    if key is None or key not in bound.targets or ref.version is not None or ref.alias:
        return None
    return bound.graph.nodes[key].entry.statement if key in bound.graph.nodes else None


def _check_embedding(part: EncoderQuery, runtime: Runtime) -> None:
    """Check that the model can be had, as far as that can be known before the run."""
    from thano_assets.assets.predictions.embedders import EmbeddingModel

    if model_ref(part) is None or part.model.version or part.model.alias:
        EmbeddingModel.of(part, runtime)


def check_names(bound: Bound, runtime: Runtime, *, again: bool = False) -> None:
    """Check that what the statement makes may have its name.

    Args:
        bound: The statement.
        runtime: The workspace's resources.
        again: Whether the name is there from a definition that may be replaced.

    Raises:
        NameExists: and overwriting was not asked for.
        InvalidOption: no model can be called that.
    """
    statement = bound.statement
    match statement:
        case Copy():
            # A table that no statement makes cannot be appended to: it would be replaced by the new rows.
            unknown = statement.mode == "append" and len(bound.entries[-1].statements) == 1
            allowed = again or (statement.mode != "fail" and not unknown)
            _check_free(statement, statement.table, runtime, allowed=allowed)
        case CreateTableAs():
            _check_free(statement, statement.name, runtime, allowed=statement.or_replace or again)
        case TrainModel() | UploadModel():
            _check_model_name(statement, statement.name, statement.name_span.start)
            _check_model_free(statement, statement.name, runtime, allowed=again)
        case GetThanosql():
            name = bound.entries[-1].name
            if statement.name.casefold() not in PREBUILT_NAMES:
                raise _unknown_prebuilt(statement)
            _check_model_name(statement, name, statement.span.start)
            _check_model_free(statement, name, runtime, allowed=again)


def _unknown_prebuilt(statement: GetThanosql) -> ThanoError:
    """The error for GET THANOSQL MODEL of a model that there is none of."""
    error: ThanoError
    if is_media_model(statement.name):
        error = UnsupportedStatement(f"{statement.name} is not a model for text.", hint=MEDIA_REFUSAL)
    else:
        error = UnknownModel(
            f"There is no pre-built model {statement.name}.",
            hint=did_you_mean(statement.name, PREBUILT_NAMES, "pre-built models"),
        )
    return error.at(statement.source, statement.name_span.start, len(statement.name_span))


def _check_free(statement: Copy | CreateTableAs, name: str, runtime: Runtime, *, allowed: bool) -> None:
    if allowed or not runtime.warehouse.exists(name):
        return
    span = statement.table_span if isinstance(statement, Copy) else statement.name_span
    hint = (
        "Its statement is gone from the catalog: OPTIONS (overwrite=True) replaces it."
        if isinstance(statement, Copy) and statement.mode == "append"
        else "OPTIONS (overwrite=True) replaces it, OPTIONS (if_exists='append') adds to it."
        if isinstance(statement, Copy)
        else "CREATE OR REPLACE TABLE replaces it."
    )
    raise NameExists(f"The table {name} exists already.", hint=hint).at(
        statement.source, span.start, span.end - span.start
    )


def _check_model_free(
    statement: TrainModel | UploadModel | GetThanosql,
    name: str,
    runtime: Runtime,
    *,
    allowed: bool,
) -> None:
    versions = runtime.registry.versions(name)
    makes_base = isinstance(statement, BuildBaseModel)
    if versions and versions[-1].is_base is not makes_base:
        other = versions[-1].kind
        regresses = isinstance(statement, BuildModel) and statement.task == "regression"
        this = "base model" if makes_base else "regressor" if regresses else "classifier"
        raise NameExists(
            f"{name} is a {other} (version {versions[-1].version}), so it cannot become a {this}.",
            hint=f"Give the {this} another name, or DELETE MODEL {name} first.",
        ).at(statement.source, statement.name_span.start, len(name))
    if versions and not allowed and not statement.options.value("overwrite"):
        newest = max(int(version.version) for version in versions)
        raise NameExists(
            f"The model {name} exists already (version {newest}).",
            hint="OPTIONS (overwrite=True) adds a version; no version is ever erased by it.",
        ).at(statement.source, statement.name_span.start, len(name))


def _check_model_name(statement: Statement, name: str, offset: int) -> None:
    if not _MODEL_NAME.fullmatch(name) or name.startswith(".") or file_name_size(name) > LONGEST_NAME:
        raise InvalidOption(
            f"{name!r} cannot be the name of a model.",
            hint="Use letters, digits, '_', '-' and blanks, at most 200 of them.",
        ).at(statement.source, offset, len(name))


def _check_source(statement: Copy, runtime: Runtime) -> None:
    from thano_assets.assets.tables.copies import source_of

    try:
        source_of(statement, runtime.workspace)
    except ThanoError as error:
        raise error.at(
            statement.source,
            statement.source_span.start,
            statement.source_span.end - statement.source_span.start,
        ) from None


def _check_columns(part: Statement, bound: Bound, runtime: Runtime) -> None:
    """Bind the part's query in DuckDB and check the columns that its options name.

    Where a table that it reads has yet to be made, the check waits for the run.
    """
    from thano_assets.assets.kinds import KINDS

    query = part.rows_from
    if query is None or (isinstance(part, CreateTableAs) and not isinstance(part.body, Query)):
        return
    made = {name for _, name in bound.targets}
    with runtime.warehouse.read() as connection:
        present = {name.casefold() for name in table_names(connection)}
        for key in bound.graph.query_reads(query):
            if key[1].casefold() not in present or (key[1] in made and key != bound.targets[-1]):
                return
        with located(query):
            columns = describe(connection, prepare(query, connection, runtime))
            refuse_twice(columns, query)
    entry = entry_of(part)
    if entry is not None:
        kind = NodeKind.TRAINING_SET if isinstance(part, TrainModel) else NodeKind(entry.kind.value)
        KINDS[kind].check_columns(part, columns, _asked(part, bound, runtime), runtime)


def _asked(part: Statement, bound: Bound, runtime: Runtime) -> AskedModel | None:
    """What is known of the model that a statement asks."""
    if not isinstance(part, ClassifierQuery):
        return None
    made_by = _planned(part.model, bound)
    version = answering(part, runtime) if made_by is None else None
    trained = made_by if isinstance(made_by, TrainModel) else None
    return AskedModel(version, trained, _task(part.model, bound, runtime) is not None)
