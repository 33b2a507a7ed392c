"""What plans ask about the world: files, tables, models, and what a change would lead to.

A changed file is read, and the tables and training sets that hang on it are tried out. So a plan knows
which rows change, and where a change ends: a file whose rows were only put in another order trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from thano_assets.assets.kind import Reads
from thano_assets.assets.kinds import KINDS
from thano_assets.assets.models.bases import read_base
from thano_assets.assets.models.promotion import NO_CHAMPION
from thano_assets.assets.models.training_inputs import training_fingerprint
from thano_assets.assets.models.training_sets import TrainingSet
from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables import files
from thano_assets.assets.tables.queries import prepare
from thano_assets.errors import ThanoError
from thano_assets.graph import Node, NodeKind
from thano_assets.graph.build import JUDGING_OPTIONS, READING_OPTIONS, Key, pinned
from thano_assets.planning import PlannedAsset, Planning, Record
from thano_assets.planning.dry_run import DryRun
from thano_assets.planning.reasons import BASE, QUERY, SOURCE, Change, file_change, statement_changes
from thano_assets.resources import uploads
from thano_assets.resources.resolved_base import identity_of_model
from thano_assets.resources.warehouse import table_names
from thano_assets.sql.statements import (
    BuildModel,
    ModelQuery,
    UploadModel,
)

if TYPE_CHECKING:
    from thano_assets.resources.registry import ModelVersion

#: Files above this size, in bytes, are not read only to tell how many of their rows changed.
COUNTED_BYTES = 256 * 1024 * 1024

# Kinds that may stand on a base model.
_ON_BASES = (NodeKind.MODEL, NodeKind.EMBEDDING, NodeKind.SEARCH)


class WorkspaceState:
    """Answers a plan's questions; open it with :meth:`opened`.

    Args:
        runtime: The workspace's resources.
        records: Gives the latest materializations of keys.
        rows: Whether to count the rows that changed, for the reasons.
    """

    def __init__(
        self, runtime: Runtime, records: Callable[[Iterable[Key]], Mapping[Key, Record]], *, rows: bool = True
    ) -> None:
        self._runtime = runtime
        self._read_records = records
        self._count_rows = rows
        self._records: dict[Key, Record | None] = {}
        self._champions: dict[str, ModelVersion | None] = {}
        self._tables: set[str] = set()
        self._opened: DryRun | None = None

    @contextmanager
    def opened(self) -> Iterator[WorkspaceState]:
        """Hold one reading connection to the warehouse; what is tried out on it vanishes with it."""
        with self._runtime.warehouse.read() as connection:
            self._tables = {name.casefold() for name in table_names(connection, temporary=False)}
            self._opened = DryRun(self._runtime, connection)
            try:
                yield self
            finally:
                self._opened.close()
                self._opened = None

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Read the records of ``keys`` together."""
        missing = [key for key in keys if key not in self._records]
        if missing:
            found = self._read_records(missing)
            self._records.update({key: found.get(key) for key in missing})

    # -- what is there -------------------------------------------------------------------------

    def present(self, node: Node) -> bool:
        """Whether the asset's result is there."""
        match node.kind:
            case NodeKind.RAW:
                return self.record(node.key) is not None
            case NodeKind.MODEL:
                return self._champion(node.name) is not None or self._all_refused(node)
            case NodeKind.MODEL_VERSION:
                return True
            case NodeKind.TRAINING_SET:
                return TrainingSet.present(self._runtime.workspace, node.name)
        return node.name.casefold() in self._tables

    def record(self, key: Key) -> Record | None:
        """The latest materialization of ``key``."""
        self.prefetch([key])
        return self._records[key]

    def current(self, key: Key, record: Record | None) -> str | None:
        """The data version of ``key`` as it is now; of a model, that of the version which answers."""
        if key[0] == NodeKind.MODEL:
            champion = self._champion(key[1])
            refused = champion is None and record is not None and record.data_version == NO_CHAMPION
            return NO_CHAMPION if refused else data_version(champion)
        if key[0] == NodeKind.MODEL_VERSION:
            return data_version(self._pinned(key[1]))
        return record.data_version if record is not None else None

    def _all_refused(self, node: Node) -> bool:
        """Whether the model has versions and none was good enough to answer."""
        record = self.record(node.key)
        refused = record is not None and record.data_version == NO_CHAMPION
        return refused and bool(self._runtime.registry.versions(node.name))

    def _champion(self, name: str) -> ModelVersion | None:
        if name not in self._champions:
            try:
                self._champions[name] = self._runtime.registry.resolve(name)
            except ThanoError:  # its files are gone
                self._champions[name] = None
        return self._champions[name]

    def _pinned(self, name: str) -> ModelVersion | None:
        model, version, alias = pinned(name)
        if version is None and alias is None:
            return None
        try:
            return self._runtime.registry.resolve(model, version=version, alias=alias)
        except ThanoError:
            return None

    def version_of(self, model: str, number: int) -> str | None:
        """The data version of ``model`` when version ``number`` answers; ``None`` where there is none."""
        return data_version(self._pinned(f"{model} VERSION {number}"))

    def parent(self, record: Record) -> str | None:
        """The data version of the version that a FIT MODEL went on from."""
        text = record.details.get("parent")
        return data_version(self._pinned(text)) if isinstance(text, str) else None

    # -- what would be -------------------------------------------------------------------------

    def foretold(self, node: Node, version: Callable[[Key], str | None]) -> str | None:
        """The data version that making ``node`` would give, ``None`` where only making it can tell.

        Args:
            node: What is made.
            version: Gives the data version that an asset has by then.
        """
        try:
            match node.kind:
                case NodeKind.RAW:
                    return node.content
                case NodeKind.TABLE:
                    return self._dry_run.table(node)
                case NodeKind.TRAINING_SET:
                    record = self.record(node.key)
                    before = record.details.get("training_set") if record else None
                    return self._dry_run.training_set(node, before)
                case NodeKind.MODEL if not node.entry.statement.options.keys() & JUDGING_OPTIONS:
                    return data_version(self._trained_before(node, version))
        except Exception as error:  # whatever is wrong with files and queries, running tells it in its words
            if not isinstance(error, ThanoError) and not _of_duckdb(error):
                raise
        return None

    def restored(self, key: Key) -> None:
        """Take ``key`` as it is again, after it was tried out."""
        if key[0] != NodeKind.RAW:
            self._dry_run.undo(key)

    def _trained_before(self, node: Node, version: Callable[[Key], str | None]) -> ModelVersion | None:
        """The version that was trained from the very same, and is used again instead of being trained."""
        statement = node.entry.statement
        if isinstance(statement, UploadModel):
            wanted = node.content
        else:
            rows = version((NodeKind.TRAINING_SET.value, node.name))
            if not isinstance(statement, BuildModel) or rows is None:
                return None
            base, content = read_base(node), node.content
            if base is not None:
                revision = version(base)
                if revision is None:
                    return None
                content = identity_of_model(revision)
            wanted = training_fingerprint(node, rows, content, None)
        versions = self._runtime.registry.versions(node.name)
        return next((one for one in versions if one.tags.get("thano.fingerprint") == wanted), None)

    @property
    def _dry_run(self) -> DryRun:
        assert self._opened is not None, "use it inside opened()"
        return self._opened

    # -- in words ------------------------------------------------------------------------------

    def code_reasons(self, node: Node, record: Record) -> list[str]:
        """What changed in the statement, or in what it reads from outside, since ``record``."""
        changes = statement_changes(record.statement, node.entry.text) if record.statement else []
        statement = node.entry.statement
        if node.kind is NodeKind.RAW or isinstance(statement, UploadModel):
            sources = [one.text for one in changes if one.subject == SOURCE]
            found = self._folder_change if isinstance(statement, UploadModel) else self._file_change
            return sources or [found(node, record)]
        if node.kind is NodeKind.TRAINING_SET:  # its code is the query and the columns that are read
            changes = [one for one in changes if one.subject in (QUERY, *READING_OPTIONS)] or changes
        told = any(one.subject == BASE for one in changes)
        base = record.details.get("base")
        identity, _, vectors_of = node.content.partition("\n")
        if node.kind in _ON_BASES and identity and base and base != identity and not told:
            text = f"the base model changed from {_short(base)} to {_short(identity)}"
            changes = [*changes, Change(BASE, text)]
        if node.kind is NodeKind.MODEL:  # the rows are the training set's business
            changes = [one for one in changes if one.subject != QUERY] or changes
        reasons = [one.text for one in changes]
        if vectors_of and not reasons:
            reasons.append(f"the vectors searched are those of {vectors_of} now")
        return reasons or [f"this version of Thano makes {node.kind.value.replace('_', ' ')} in another way"]

    def _file_change(self, node: Node, record: Record) -> str:
        workspace = self._runtime.workspace
        try:
            now = files.file_digests(files.sources_of(node.entry, workspace), workspace)
        except ThanoError as error:
            return error.message.rstrip(".")
        then = record.details.get("files")
        return (file_change(then, now) if isinstance(then, dict) else None) or "other files are read now"

    def _folder_change(self, node: Node, record: Record) -> str:
        statement = node.statement(UploadModel)
        try:
            now = uploads.find(self._runtime.workspace, statement.path).digests()
        except ThanoError as error:
            return error.message.rstrip(".")
        then = record.details.get("files")
        return (file_change(then, now) if isinstance(then, dict) else None) or "the model's files changed"

    def data_reason(self, node: Node, read: Key, then: str | None, now: str) -> str:
        """What changed in ``read``, one of the inputs of ``node``."""
        name = read[1]
        if read[0] in (NodeKind.MODEL, NodeKind.MODEL_VERSION):
            return self._model_change(name, then, now)
        if read[0] == NodeKind.RAW:
            return self._rows_of_file(node, read)
        if read[0] == NodeKind.TRAINING_SET:
            change = self._dry_run.change(read)
            if change is not None and not any((change.added, change.removed, change.columns)):
                return "the names or the label type of the training set changed"
            return change.of("the training set") if change is not None else "the training rows changed"
        change = self._dry_run.change(read) if self._count_rows else None
        return change.of(name) if change is not None else f"{name} changed"

    def _rows_of_file(self, node: Node, read: Key) -> str:
        """Of a table made from files: which of them, and how many of its rows."""
        workspace = self._runtime.workspace
        try:
            sources = files.sources_of(node.entry, workspace)
            now = files.file_digests(sources, workspace)
        except ThanoError as error:
            return error.message.rstrip(".")
        record = self.record(read)
        then = record.details.get("files") if record else None
        changed = [name for name in now if not isinstance(then, dict) or then.get(name) != now[name]]
        what = changed[0].rpartition("/")[2] if len(changed) == 1 else f"{len(changed)} files"
        if not changed:
            what = "the files"
        if not self._count_rows or sum(source.bytes for source in sources) > COUNTED_BYTES:
            return f"{what} changed"
        if not self._dry_run.has(node.name) and self.foretold(node, lambda key: None) is None:
            return f"{what} changed"
        change = self._dry_run.change(node.key)
        return change.of(what) if change is not None else f"{what} changed"

    def _model_change(self, name: str, then: str | None, now: str) -> str:
        model, _, _ = pinned(name)
        numbers = {
            data_version(version): version.version for version in self._runtime.registry.versions(model)
        }
        before = f"not version {numbers[then]}" if then in numbers else "not the one before"
        return f"version {numbers.get(now, '?')} of {model} answers now, {before}"

    # -- how much ------------------------------------------------------------------------------

    def measured(
        self, planned: PlannedAsset, planning: Planning, *, incremental: bool = True
    ) -> PlannedAsset:
        """``planned`` with its rows and an estimate of its seconds, as far as they are known."""
        node = planned.node
        record = self.record(node.key)
        if not planned.made:
            again = node.key in planning.made  # by an earlier statement
            return replace(
                planned,
                rows=self._dry_run.counts.get(node.key) if again else record.rows if record else None,
                seconds=0.0,
            )
        if node.kind in (NodeKind.TABLE, NodeKind.TRAINING_SET):
            planning.version(node.key)  # tries it out, and so counts
        rows = self._rows(node, planning)
        if node.kind is NodeKind.MODEL and incremental:
            same = self._trained_before(node, planning.version)
            if same is not None:
                verb = "is" if isinstance(node.entry.statement, UploadModel) else "was trained from"
                why = f"{planned.reason}; version {same.version} {verb} the very same"
                return replace(planned, reason=why, rows=0, seconds=None)
        seconds = record.seconds if record else None
        before = record.details.get("rows_run") if record else None
        if node.kind is NodeKind.MODEL:
            trained_on = self.record((NodeKind.TRAINING_SET.value, node.name))
            before = trained_on.rows if trained_on else None
            trials = node.entry.statement.options.get("tune") or 0
            if trials:
                planned = replace(planned, reason=f"{planned.reason}; {trials} trials, then the training")
            if seconds is not None and record is not None:  # a trial is about as long as a training
                seconds = seconds * (1 + trials) / (1 + int(record.details.get("trials") or 0))
        if seconds is not None and rows is not None and isinstance(before, int) and before > 0:
            seconds = round(seconds * rows / before, 1)
        return replace(planned, rows=rows, seconds=seconds)

    def _rows(self, node: Node, planning: Planning) -> int | None:
        if node.kind is NodeKind.MODEL:
            key = (NodeKind.TRAINING_SET.value, node.name)
            record = self.record(key)
            return self._dry_run.counts.get(key, record.rows if record and key not in planning.made else None)
        if isinstance(node.entry.statement.inner, ModelQuery):
            return self._rows_to_run(node, planning)
        return self._dry_run.counts.get(node.key)

    def _rows_to_run(self, node: Node, planning: Planning) -> int | None:
        """Texts that the model has not seen yet, where model and tables are known before the run."""
        body = node.statement(ModelQuery)
        tables = [read for read in node.reads if read[0] not in (NodeKind.MODEL, NodeKind.MODEL_VERSION)]
        try:
            if any(read in planning.made and planning.version(read) is None for read in tables):
                return None
            sql = prepare(body.query, self._dry_run.connection, self._runtime)
            if any(read in planning.made for read in node.reads if read not in tables):
                return self._dry_run.count(f"({sql})")
            reads = Reads(sql, self._dry_run.connection, self._dry_run.count)
            return KINDS[node.kind].texts_to_run(body, reads, self._runtime)
        except Exception as error:  # the run tells it in its own words
            if not isinstance(error, ThanoError) and not _of_duckdb(error):
                raise
            return None


def data_version(version: ModelVersion | None) -> str | None:
    """The data version of a model that ``version`` answers for."""
    if version is None:
        return None
    return version.data_version


def _short(identity: str) -> str:
    name, _, revision = identity.partition("@")
    revision = revision.rpartition(":")[0] or revision
    return f"{name} {revision[-12:]}" if revision else name


def _of_duckdb(error: Exception) -> bool:
    import duckdb

    return isinstance(error, duckdb.Error)
