"""What an environment made differently from production: metrics of models, flipped labels, rows of tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

from thano_assets.catalog import Entry, EntryKind, catalog_of
from thano_assets.planning.reasons import statement_changes
from thano_assets.resources.environments import Environment, EnvironmentRegistry
from thano_assets.resources.warehouse import PRODUCTION, Column, Warehouse, describe, quote, table_names
from thano_assets.results import Result, counted
from thano_assets.sql.grammar import CHAMPION
from thano_assets.sql.statements import CreateTableAs, Predict

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from thano_assets.catalog.environment import EnvironmentCatalog
    from thano_assets.resources.registry import ModelVersion

_SHOWN = 120
# The figures that people look at first; the others follow by name.
_FIRST = ("accuracy", "f1_macro", "loss")
#: Pairs of labels, the most frequent first, that are told of one prediction table.
_PAIRS = 10


@dataclass(frozen=True)
class Difference:
    """One row of the comparison.

    Attributes:
        asset: ``group/name``.
        what: What of it differs.
        production: As it is there.
        environment: As it is in the environment.
        change: From production to the environment.
    """

    asset: str
    what: str
    production: str | None = None
    environment: str | None = None
    change: str | None = None


def compare(environment: Environment, examples: int = 5) -> Result:
    """How what ``environment`` made differs from production; a row per difference, none where it borrows.

    Args:
        environment: Compared with the workspace that it belongs to.
        examples: Rows shown of each prediction table whose label flipped.
    """
    catalog, registry = catalog_of(environment), EnvironmentRegistry(environment)
    side = _Side(environment.name, catalog, examples)  # type: ignore[arg-type]  # an environment has such a catalog
    found: dict[str, list[Difference]] = {}
    names = {
        *registry.own_models(),
        *(e.name for e in side.catalog.own_entries() if e.kind is EntryKind.MODEL),
    }
    for name in sorted(names):
        found[f"models/{name}"] = list(side.model(name, registry))
    with Warehouse.of(environment).read() as connection:
        for asset, differences in side.relations(connection):
            found[asset] = differences
    rows = [difference for differences in found.values() for difference in differences]
    differing = sum(bool(differences) for differences in found.values())
    if not found:
        summary = f"{environment.name} has made nothing itself: it is production."
    elif not differing:
        summary = f"{counted(len(found), 'asset')} of {environment.name}, none differs from production."
    else:
        whole = f"{counted(len(found), 'asset')} of {environment.name}"
        summary = f"{differing:,} of {whole} {'differs' if differing == 1 else 'differ'} from production."
    result = Result.of("DIFF", "", _table(rows))
    result.summary = summary
    return result


def _table(rows: list[Difference]) -> pa.Table:
    import pyarrow as pa

    names = [field.name for field in fields(Difference)]
    columns = list(zip(*map(astuple, rows), strict=True)) or [()] * len(names)
    return pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}
    )


@dataclass(frozen=True)
class _Side:
    """An environment as it is compared: its name, its catalog, and how many examples are asked for."""

    name: str
    catalog: EnvironmentCatalog
    examples: int

    # -- models ----------------------------------------------------------------------------------------

    def model(self, name: str, registry: EnvironmentRegistry) -> Iterator[Difference]:
        """The statement, the version and the metrics of a model, side by side."""
        asset = f"models/{name}"
        ours, theirs = _answering(registry.own_versions(name)), _answering(registry.production.versions(name))
        if ours is None:
            yield from self.statement(asset, self.catalog.model(name), not_made=True)
            return
        answers = CHAMPION in ours.aliases
        told = f"VERSION {ours.version}" + ("" if answers else ", not promoted: production's answers")
        if theirs is None:
            yield Difference(asset, f"only in {self.name}", None, told)
            yield from _metrics(asset, {}, ours.metrics)
            return
        changes = statement_changes(theirs.tags.get("thano.statement"), ours.tags.get("thano.statement", ""))
        if not changes and ours.tags.get("thano.data_version") == theirs.tags.get("thano.data_version"):
            return
        yield Difference(asset, "version", f"VERSION {theirs.version}", told)
        for change in changes:
            yield Difference(asset, "statement", change=change.text)
        if ours.tags.get("thano.training_set") != theirs.tags.get("thano.training_set"):
            yield Difference(asset, "training set", change="trained on other rows")
        yield from _metrics(asset, theirs.metrics, ours.metrics)

    def statement(self, asset: str, own: Entry | None, *, not_made: bool = False) -> Iterator[Difference]:
        """How an own statement differs from production's of that name."""
        if own is None or not self.catalog.is_own(own.kind, own.name):
            return
        lent = self.catalog.production
        other = lent.relation(own.name) if own.kind.is_relation else lent.model(own.name)
        later = ", not made yet" if not_made else ""
        if other is None:
            if not_made:
                yield Difference(asset, f"only in {self.name}", change=f"defined{later}")
            return
        for change in statement_changes(other.text, own.text):
            yield Difference(asset, "statement", change=change.text + later)

    # -- tables ----------------------------------------------------------------------------------------

    def relations(self, connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, list[Difference]]]:
        """Every table that the environment has or defines itself, with its differences."""
        own, lent = _tables(connection, "current_database()"), _tables(connection, f"'{PRODUCTION}'")
        defined = {
            entry.name.casefold(): entry for entry in self.catalog.own_entries() if entry.kind.is_relation
        }
        for folded in sorted({*own, *defined}):
            name = own.get(folded) or defined[folded].name
            entry = self.catalog.relation(name)
            asset = f"{entry.kind.value if entry else EntryKind.TABLE.value}/{name}"
            differences = list(self.statement(asset, entry, not_made=folded not in own))
            if folded in own:
                ours, theirs = quote(own[folded]), lent.get(folded)
                if theirs is None:
                    rows = counted(_count(connection, ours), "row")
                    differences.insert(0, Difference(asset, f"only in {self.name}", None, rows))
                else:
                    there = f"{PRODUCTION}.main.{quote(theirs)}"
                    differences += self._rows(asset, name, entry, connection, there, ours)
            yield asset, differences

    def _rows(
        self,
        asset: str,
        name: str,
        entry: Entry | None,
        connection: duckdb.DuckDBPyConnection,
        theirs: str,
        ours: str,
    ) -> list[Difference]:
        before, after = describe(connection, theirs), describe(connection, ours)
        if [column.name for column in before] == ["metric", "score"] == [column.name for column in after]:
            return _scores(asset, connection, theirs, ours)
        other = self.catalog.production.relation(name)
        then, now = _predict(other), _predict(entry)
        if then is not None and now is not None:
            labels = _labels(asset, connection, (theirs, before, then), (ours, after, now))
            if labels is not None:
                return labels.differences(self.name, self.examples)
        return _table_rows(asset, connection, (theirs, before), (ours, after))


def _answering(versions: list[ModelVersion]) -> ModelVersion | None:
    """The champion, else the newest."""
    return next((one for one in versions if CHAMPION in one.aliases), versions[-1] if versions else None)


def _metrics(asset: str, before: dict[str, float], after: dict[str, float]) -> Iterator[Difference]:
    known = {*before, *after}
    for name in (*(one for one in _FIRST if one in known), *sorted(known - set(_FIRST))):
        yield _figure(asset, name, before.get(name), after.get(name))


def _figure(asset: str, what: str, before: float | None, after: float | None) -> Difference:
    change = f"{after - before:+.4f}" if before is not None and after is not None else None
    shown = [None if value is None else f"{value:.4f}" for value in (before, after)]
    return Difference(asset, what, shown[0], shown[1], change)


def _tables(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, str]:
    """Names of a database's tables, by their names without case."""
    names = table_names(connection, temporary=False, database=database)
    return {name.casefold(): name for name in names}


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def _scores(asset: str, connection: duckdb.DuckDBPyConnection, theirs: str, ours: str) -> list[Difference]:
    """The metrics of two evaluations, side by side, if any differs."""
    before, after = (
        dict(connection.execute(f"SELECT metric, score FROM {table}").fetchall()) for table in (theirs, ours)
    )
    if before == after:
        return []
    return [_figure(asset, name, before.get(name), after.get(name)) for name in {**before, **after}]


def _table_rows(
    asset: str,
    connection: duckdb.DuckDBPyConnection,
    theirs: tuple[str, list[Column]],
    ours: tuple[str, list[Column]],
) -> list[Difference]:
    """Columns that came or went, and rows added and removed, each counted as often as it stands there."""
    found = []
    gone = [f"{c.name} {c.type}" for c in theirs[1] if c not in ours[1]]
    came = [f"{c.name} {c.type}" for c in ours[1] if c not in theirs[1]]
    if gone or came:
        words = [
            f"{', '.join(names)} {verb}" for names, verb in ((came, "added"), (gone, "removed")) if names
        ]
        found.append(Difference(asset, "columns", str(len(theirs[1])), str(len(ours[1])), "; ".join(words)))
    common = ", ".join(quote(column.name) for column in ours[1] if column in theirs[1])
    before, after = _count(connection, theirs[0]), _count(connection, ours[0])
    added, removed = after, before
    if common:
        left, right = (f"SELECT {common} FROM {table}" for table in (ours[0], theirs[0]))
        added = _count(connection, f"({left} EXCEPT ALL {right})")
        removed = _count(connection, f"({right} EXCEPT ALL {left})")
    if added or removed:
        change = f"{added:,} added, {removed:,} removed"
        found.append(Difference(asset, "rows", f"{before:,}", f"{after:,}", change))
    return found


# -- predictions ---------------------------------------------------------------------------------------


def _predict(entry: Entry | None) -> Predict | None:
    if entry is None or entry.kind is not EntryKind.PREDICTION:
        return None
    statement = entry.statement
    return (
        statement.body
        if isinstance(statement, CreateTableAs) and isinstance(statement.body, Predict)
        else None
    )


def _labels(
    asset: str,
    connection: duckdb.DuckDBPyConnection,
    theirs: tuple[str, list[Column], Predict],
    ours: tuple[str, list[Column], Predict],
) -> _Labels | None:
    """Both sides' rows made ready to be compared; ``None`` where a table lacks its label column."""
    sides = []
    for table, columns, predict in (theirs, ours):
        result = str(predict.options.value("result_col"))
        added = {result.casefold(), "probability", "probabilities"}
        if not any(column.name.casefold() == result.casefold() for column in columns):
            return None
        sides.append((table, [c for c in columns if c.name.casefold() not in added], quote(result)))
    (there, before, then), (here, after, now) = sides
    keys = [quote(column.name) for column in after if column in before]
    text = str(ours[2].options.value("text_col"))
    shown = next((quote(c.name) for c in after if c.name.casefold() == text.casefold()), "NULL")
    return _Labels(asset, connection, there, then, here, now, keys, shown)


@dataclass(frozen=True)
class _Labels:
    """Two prediction tables whose rows belong together where their query's columns agree.

    Rows that stand there several times are matched one to one. Without a column in common, rows are matched
    by their position.
    """

    asset: str
    connection: duckdb.DuckDBPyConnection
    theirs: str
    then: str
    ours: str
    now: str
    keys: list[str]
    text: str

    def differences(self, environment: str, examples: int) -> list[Difference]:
        """Rows on one side only, how many labels flipped, which into which, and the first of them."""
        before, after = _count(self.connection, self.theirs), _count(self.connection, self.ours)
        cursor = self.connection.execute(
            f"SELECT count(*), count(*) FILTER (WHERE {_FLIPPED}) FROM ({self._both})"
        )
        matched, flipped = (int(value) for value in cursor.fetchall()[0])
        found = []
        if matched < before or matched < after:
            change = f"{after - matched:,} only in {environment}, {before - matched:,} only in production"
            found.append(Difference(self.asset, "rows", f"{before:,}", f"{after:,}", change))
        if not flipped:
            return found
        share = f"{flipped:,} of {counted(matched, 'row')} ({flipped / matched:.1%})"
        found.append(Difference(self.asset, "flipped labels", change=share))
        pairs = self.connection.execute(
            f"SELECT was, now, count(*) FROM ({self._both}) WHERE {_FLIPPED} "
            f"GROUP BY was, now ORDER BY count(*) DESC, was, now LIMIT {_PAIRS}"
        ).fetchall()
        found += [Difference(self.asset, "flipped", a, b, counted(number, "row")) for a, b, number in pairs]
        rows = self.connection.execute(
            f"SELECT was, now, shown FROM ({self._both}) WHERE {_FLIPPED} "
            f"ORDER BY place LIMIT {int(examples)}"
        ).fetchall()
        found += [Difference(self.asset, "example", a, b, _cut(text)) for a, b, text in rows]
        return found

    @property
    def _both(self) -> str:
        """``was`` and ``now`` (labels as text), ``shown`` (the text), ``place`` (row in the environment)."""
        lent, own = (
            self._side(self.theirs, self.then, "NULL"),
            self._side(self.ours, self.now, self.text),
        )
        matching = [f"a.k{i} IS NOT DISTINCT FROM b.k{i}" for i in range(len(self.keys))]
        return (
            f"SELECT a.label AS was, b.label AS now, b.shown, b.place FROM ({lent}) a JOIN ({own}) b "
            f"ON {' AND '.join([*matching, 'a.number = b.number'])}"
        )

    def _side(self, table: str, label: str, shown: str) -> str:
        keys = "".join(f"{key} AS k{number}, " for number, key in enumerate(self.keys))
        among = f"PARTITION BY {', '.join(self.keys)} " if self.keys else ""
        return (
            f"SELECT {keys}CAST({label} AS VARCHAR) AS label, CAST({shown} AS VARCHAR) AS shown, "
            f"rowid AS place, row_number() OVER ({among}ORDER BY rowid) AS number FROM {table}"
        )


_FLIPPED = "was IS DISTINCT FROM now"


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
