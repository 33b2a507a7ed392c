"""Reading statements on models: those that make versions, ask them and keep them."""

from __future__ import annotations

from thano_assets.errors import UnknownBaseModel, UnsupportedStatement
from thano_assets.sql.base_names import TABLE_BASES, build_kind, is_media_model
from thano_assets.sql.cursor import Common
from thano_assets.sql.grammar import MEDIA_REFUSAL
from thano_assets.sql.lexer import QUOTED, STRING
from thano_assets.sql.objectives import BASE_KIND
from thano_assets.sql.options import Options
from thano_assets.sql.queries import QueryReader
from thano_assets.sql.query import Query
from thano_assets.sql.source import Span
from thano_assets.sql.statements import (
    MODEL_QUERIES,
    BuildBaseModel,
    BuildModel,
    BuildTableModel,
    ClassifierQuery,
    DeleteModel,
    FitModel,
    ModelQuery,
    ModelRef,
    PromoteModel,
    RebuildModel,
    Search,
    UploadModel,
)


class ModelReader(QueryReader):
    """The part of the parser that reads statements on models."""

    def build_model(self) -> BuildModel:
        """``BUILD MODEL …``."""
        kind = "BUILD MODEL"
        first = self.position
        self.expect("BUILD", kind)
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        self.expect("USING", kind)
        token = self.peek()
        if token is not None and token.kind is STRING and token.value.strip():
            base, base_span = token.value, Span(token.start, token.end)
            self.position += 1
        else:
            base, base_span = self.name("the name of a base model", kind)
        base_quoted = self.tokens[self.position - 1].kind in (STRING, QUOTED)
        if "/" not in base and is_media_model(base):
            raise UnsupportedStatement(
                f"{base} is not a base model for text.",
                hint=f"{MEDIA_REFUSAL} LIST THANOSQL MODEL shows those it has.",
            ).at(self.source, base_span.start, len(base_span))
        meant = next((name for name in TABLE_BASES if name.casefold() == base.casefold()), base)
        if meant != base and not base_quoted:  # its options would be looked up among those of texts
            raise UnknownBaseModel(f"There is no base model {base}.", hint=f"Did you mean {meant}?").at(
                self.source, base_span.start, len(base_span)
            )
        kind = build_kind(base)
        options = self.options(kind)
        query = self._as_query(kind, options)
        cls = BuildTableModel if base in TABLE_BASES else BuildModel
        if options.kind == BASE_KIND:
            cls = BuildBaseModel
        return cls(
            name=name,
            name_span=name_span,
            base=base,
            base_span=base_span,
            base_quoted=base_quoted,
            query=query,
            **self.finish(first, options),
        )

    def fit_model(self) -> FitModel:
        """``FIT MODEL …``."""
        kind = "FIT MODEL"
        first = self.position
        self.expect("FIT", kind)
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        self.expect("USING", kind)
        parent = self.model_reference(kind)
        options = self.options(kind)
        query = self._as_query(kind, options)
        return FitModel(
            name=name,
            name_span=name_span,
            parent=parent,
            query=query,
            **self.finish(first, options),
        )

    def model_query(self, kind: str) -> ModelQuery:
        """``PREDICT USING …`` and its like, by their first words."""
        model, query, common = self._using(kind, *kind.split())
        return MODEL_QUERIES[kind](model=model, query=query, **common)

    def search(self) -> Search:
        """``SEARCH TEXT USING …`` or ``SEARCH KEYWORD USING …``."""
        following = self.peek(1)
        if following is None or following.upper not in ("TEXT", "KEYWORD"):
            self.position += 1
            raise self.expected("TEXT or KEYWORD", "SEARCH TEXT")
        what = following.upper
        model, query, common = self._using(f"SEARCH {what}", "SEARCH", what)
        return Search(what=what, model=model, query=query, **common)

    def upload_model(self) -> UploadModel:
        """``UPLOAD MODEL …``."""
        kind = "UPLOAD MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        options = self.options(kind)
        self.expect("FROM", kind)
        path, path_span = self.path(kind)
        options = self.options(kind, options)
        return UploadModel(
            name=name,
            name_span=name_span,
            path=path,
            path_span=path_span,
            **self.finish(first, options),
        )

    def delete_model(self) -> DeleteModel:
        """``DELETE MODEL …``."""
        kind = "DELETE MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        version = self.version(kind) if self.sees("VERSION") else None
        common = self.finish(first, Options(kind))
        return DeleteModel(name=name, name_span=name_span, version=version, **common)

    def promote_model(self) -> PromoteModel:
        """``PROMOTE MODEL …``."""
        kind = "PROMOTE MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        version = self.version(kind)
        common = self.finish(first, Options(kind))
        return PromoteModel(name=name, name_span=name_span, version=version, **common)

    def rebuild_model(self) -> RebuildModel:
        """``REBUILD MODEL …``."""
        kind = "REBUILD MODEL"
        first = self.position
        self.position += 1
        self.expect("MODEL", kind)
        name, name_span = self.model(kind)
        version = self.version(kind) if self.sees("VERSION") else None
        verify = self.accept("VERIFY")
        common = self.finish(first, Options(kind))
        return RebuildModel(name=name, name_span=name_span, version=version, verify=verify, **common)

    def _as_query(self, kind: str, options: Options) -> Query:
        if not self.sees("AS"):
            raise self.expected("AS" if options else "OPTIONS (…) or AS", kind)
        self.position += 1
        return self.query(kind)

    def _using(self, kind: str, *words: str) -> tuple[ModelRef, Query, Common]:
        """Step over ``words USING model [OPTIONS (…)] AS query``."""
        first = self.position
        for word in words:
            self.expect(word, kind)
        self.expect("USING", kind)
        model = self.model_reference(kind)
        if (
            not model.quoted
            and not issubclass(MODEL_QUERIES[words[0] if words[0] == "SEARCH" else kind], ClassifierQuery)
            and is_media_model(model.name)
        ):
            raise UnsupportedStatement(f"{model.name} is not a model for text.", hint=MEDIA_REFUSAL).at(
                self.source, model.span.start, len(model.span)
            )
        options = self.options(kind)
        query = self._as_query(kind, options)
        return model, query, self.finish(first, options)
