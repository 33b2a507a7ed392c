"""Statements become assets with edges from what their text reads; a plan does no more than is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thano_assets.catalog import Entry, EntryKind, entry_of
from thano_assets.catalog.overlay import Overlay
from thano_assets.errors import QueryError, ThanoError, UnknownModel, UnknownTable, UnsupportedStatement
from thano_assets.graph import Graph, Node
from thano_assets.graph.build import Key
from thano_assets.planning import Action, Mode, Planning, Record
from thano_assets.planning.binding import bind, check_served
from thano_assets.sql import parse
from thano_assets.sql.grammar import STATEMENT_SPECS
from thano_assets.sql.options import OPTION_SPECS

TUTORIAL = """
COPY movie_review_train OPTIONS (overwrite=True) FROM "tutorial_data/movie_review_data/movie_review_train.csv";
COPY movie_review_test OPTIONS (overwrite=True) FROM "tutorial_data/movie_review_data/movie_review_test.csv";
BUILD MODEL mine USING ElectraEn OPTIONS (text_col='review', label_col='sentiment') AS SELECT * FROM movie_review_train;
CREATE TABLE answers AS PREDICT USING mine OPTIONS (text_col='review') AS SELECT * FROM movie_review_test;
CREATE TABLE report AS EVALUATE USING mine OPTIONS (text_col='review', label_col='sentiment')
  AS SELECT * FROM movie_review_test;
CREATE TABLE wrong AS SELECT * FROM answers WHERE predicted <> sentiment;
"""


def entries(text: str) -> list[Entry]:
    return [entry for statement in parse(text) if (entry := entry_of(statement)) is not None]


def reads(graph: Graph) -> dict[str, list[str]]:
    return {"/".join(key): ["/".join(read) for read in node.reads] for key, node in graph.nodes.items()}


def test_the_tutorial_as_a_graph() -> None:
    assert reads(Graph(entries(TUTORIAL))) == {
        "raw/movie_review_train": [],
        "tables/movie_review_train": ["raw/movie_review_train"],
        "raw/movie_review_test": [],
        "tables/movie_review_test": ["raw/movie_review_test"],
        "training_sets/mine": ["tables/movie_review_train"],
        "models/mine": ["training_sets/mine"],
        "predictions/answers": ["models/mine", "tables/movie_review_test"],
        "evaluations/report": ["models/mine", "tables/movie_review_test"],
        "tables/wrong": ["predictions/answers"],
    }


def test_embeddings_read_their_model_where_it_is_a_registered_one() -> None:
    text = """
    COPY t FROM '[{"text": "a"}]';
    CREATE TABLE by_base AS CONVERT USING SBERTEn AS SELECT * FROM t;
    CREATE TABLE by_hub AS CONVERT USING 'org/encoder' AS SELECT * FROM t;
    CREATE TABLE by_model AS CONVERT USING mine AS SELECT * FROM t;
    CREATE TABLE by_version AS CONVERT USING mine VERSION 2 AS SELECT * FROM t;
    CREATE TABLE found AS SEARCH TEXT USING SBERTEn OPTIONS (search_input='a', emb_col='convert_result')
      AS SELECT * FROM by_base;
    CREATE TABLE words AS SEARCH KEYWORD USING mine AS SELECT * FROM found;
    """
    assert reads(Graph(entries(text))) == {
        "tables/t": [],
        "embeddings/by_base": ["tables/t"],
        "embeddings/by_hub": ["tables/t"],
        "embeddings/by_model": ["models/mine", "tables/t"],
        "model_versions/mine VERSION 2": [],
        "embeddings/by_version": ["model_versions/mine VERSION 2", "tables/t"],
        "searches/found": ["embeddings/by_base"],
        "searches/words": ["models/mine", "searches/found"],
    }


def test_nested_statements_are_assets_of_their_own() -> None:
    graph = Graph(
        entries(
            'COPY t FROM \'[{"text": "a"}]\';'
            "CREATE TABLE n AS SELECT count(*) AS n FROM (PREDICT USING m AS SELECT * FROM t) JOIN t USING (text)"
        )
    )
    nested = [key for key in graph.nodes if key[0] == "predictions"]
    assert len(nested) == 1
    assert graph.nodes[("tables", "n")].reads == (nested[0], ("tables", "t"))
    assert graph.nodes[nested[0]].reads == (("models", "m"), ("tables", "t"))
    assert graph.nodes[("tables", "t")].reads == ()  # inline rows have no file


def test_fit_model_reads_its_parent_and_its_own_rows() -> None:
    text = (
        TUTORIAL + "FIT MODEL next USING mine OPTIONS (text_col='review') AS SELECT * FROM movie_review_test;"
    )
    assert reads(Graph(entries(text)))["models/next"] == ["training_sets/next", "models/mine"]
    own = Graph(entries(TUTORIAL + "FIT MODEL mine USING mine AS SELECT * FROM movie_review_test;"))
    assert own.nodes[("models", "mine")].reads == (("training_sets", "mine"),)


def test_common_table_expressions_and_case_do_not_make_edges_or_lose_them() -> None:
    graph = Graph(
        entries(
            "CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT 2 AS x;"
            "CREATE TABLE c AS WITH b AS (SELECT * FROM A) SELECT * FROM b"
        )
    )
    assert graph.nodes[("tables", "c")].reads == (("tables", "a"),)


def test_a_statement_that_no_longer_parses_is_shown_and_hurts_nothing_else() -> None:
    broken = Entry(EntryKind.TABLE, "bad", "CREATE TABLE bad AS SELEC 1")
    graph = Graph([*entries(TUTORIAL), broken])
    assert set(graph.broken) == {broken}
    assert ("models", "mine") in graph.nodes


def test_statements_in_a_circle_are_broken_and_the_rest_loads() -> None:
    graph = Graph(
        entries(
            "CREATE TABLE a AS SELECT * FROM b; CREATE TABLE b AS SELECT * FROM a; CREATE TABLE c AS SELECT 1 AS x"
        )
    )
    assert set(graph.nodes) == {("tables", "c")}
    assert {entry.name for entry in graph.broken} == {"a", "b"}


class World:
    """What a plan asks about, as dictionaries."""

    def __init__(self, present: set[str], records: dict[Key, Record] | None = None) -> None:
        self._present, self.records = present, records or {}
        self.foretells: dict[Key, str] = {}

    def present(self, node: Node) -> bool:
        return "/".join(node.key) in self._present

    def record(self, key: Key) -> Record | None:
        return self.records.get(key)

    def current(self, key: Key, record: Record | None) -> str | None:
        return record.data_version if record else None

    def foretold(self, node: Node, version: object) -> str | None:
        return self.foretells.get(node.key)

    def restored(self, key: Key) -> None:
        pass

    def code_reasons(self, node: Node, record: Record) -> list[str]:
        return ["the statement changed"]

    def data_reason(self, node: Node, read: Key, then: str | None, now: str) -> str:
        return f"{read[1]} changed"


class TestPlan:
    graph = Graph(entries(TUTORIAL))

    def plan(self, target: Key, present: set[str]) -> dict[str, str]:
        planned = Planning(World(present)).plan(self.graph, [target], Mode.BY_HAND)
        return {"/".join(p.node.key): p.action.value for p in planned}

    def test_everything_upstream_that_is_missing_is_made_in_order(self) -> None:
        plan = self.plan(("predictions", "answers"), set())
        assert set(plan.values()) == {Action.CREATE}
        order = list(plan)
        assert order.index("raw/movie_review_train") < order.index("tables/movie_review_train")
        assert order.index("tables/movie_review_train") < order.index("training_sets/mine")
        assert order.index("models/mine") < order.index("predictions/answers")
        assert order[-1] == "predictions/answers"

    def test_a_present_model_does_not_need_its_training_rows(self) -> None:
        assert self.plan(("predictions", "answers"), {"models/mine", "tables/movie_review_test"}) == {
            "models/mine": "skip",
            "tables/movie_review_test": "skip",
            "predictions/answers": "create",
        }

    def test_what_was_asked_for_is_made_anew_with_its_training_set(self) -> None:
        present = {"models/mine", "training_sets/mine", "tables/movie_review_train"}
        assert self.plan(("models", "mine"), present) == {
            "tables/movie_review_train": "skip",
            "training_sets/mine": "rebuild",
            "models/mine": "rebuild",
        }


class TestBinding:
    catalog = Overlay.of(entries(TUTORIAL))

    @pytest.mark.parametrize(
        ("text", "error", "sentence", "place"),
        [
            (
                "PREDICT USING mine AS SELECT * FROM movie_reviews_test",
                UnknownTable,
                "There is no table movie_reviews_test. Did you mean movie_review_test",
                (1, 37),
            ),
            (
                "EVALUATE\nUSING mien AS SELECT 1",
                UnknownModel,
                "There is no model mien. Did you mean mine?",
                (2, 7),
            ),
            (
                "SELECT *\nFROM (PREDICT USING mine\n AS SELECT * FROM nowhere)",
                UnknownTable,
                "There is no table nowhere.",
                (3, 19),
            ),
            (
                "CREATE OR REPLACE TABLE wrong AS SELECT * FROM wrong",
                QueryError,
                "wrong would be made from itself.",
                (1, 34),
            ),
            (
                "CREATE OR REPLACE TABLE movie_review_test AS SELECT * FROM wrong",
                QueryError,
                "movie_review_test would be made from what is made from it",
                (1, 46),
            ),
        ],
    )
    def test_what_is_wrong_is_said_with_its_place(
        self, text: str, error: type[ThanoError], sentence: str, place: tuple[int, int]
    ) -> None:
        with pytest.raises(error) as caught:
            bind(parse(text)[0], self.catalog, [])
        assert str(caught.value).startswith(sentence)
        assert (caught.value.line, caught.value.column) == place

    def test_the_prebuilt_model_needs_no_statement_before(self) -> None:
        bound = bind(
            parse("PREDICT USING tutorial_text_classification AS SELECT * FROM movie_review_test")[0],
            self.catalog,
            [],
        )
        assert bound.entries[0].name == "tutorial_text_classification"
        assert ("models", "tutorial_text_classification") in bound.graph.nodes

    def test_append_adds_a_statement_to_the_tables_definition(self) -> None:
        append = "COPY movie_review_test OPTIONS (if_exists='append') FROM 'more.csv'"
        entry = bind(parse(append)[0], self.catalog, []).entries[-1]
        assert [type(statement).__name__ for statement in entry.statements] == ["Copy", "Copy"]
        assert entry.statements[1].text == append

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("CONVERT USING SBERTEn AS SELECT 1", "CONVERT"),
            ("SELECT * FROM (CONVERT USING SBERTEn AS SELECT 1)", "CONVERT"),
            ("CREATE TABLE x AS CONVERT USING SBERTEn AS SELECT 1", "CONVERT"),
            ("PLAN CONVERT USING SBERTEn AS SELECT 1", "CONVERT"),
        ],
    )
    def test_what_is_not_there_yet_is_said_before_anything_runs(
        self, text: str, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(STATEMENT_SPECS, what, replace(STATEMENT_SPECS[what], available=False))
        with pytest.raises(UnsupportedStatement) as caught:
            check_served(parse(text)[0])
        assert str(caught.value).startswith(
            f"{what} is part of the language, but this version does not run it yet."
        )

    def test_an_option_that_is_not_there_yet_is_not_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        specs = OPTION_SPECS["BUILD MODEL"]
        monkeypatch.setitem(specs, "tune", replace(specs["tune"], available=False))
        text = "BUILD MODEL m USING ElectraEn OPTIONS (tune=3) AS SELECT 1"
        with pytest.raises(UnsupportedStatement, match="Option tune is part of the language"):
            check_served(parse(text)[0])


class TestIncrementalPlan:
    """What is out of date, and how far a change goes."""

    graph = Graph(entries(TUTORIAL))

    def world(self) -> World:
        """Everything made, nothing changed since."""
        records = {
            key: Record(
                key,
                data_version=f"{key} as made",
                code_version=node.code_version,
                inputs={read: f"{read} as made" for read in node.reads},
            )
            for key, node in self.graph.nodes.items()
        }
        return World({"/".join(key) for key in self.graph.nodes}, records)

    def made(self, world: World) -> dict[str, str]:
        targets = list(self.graph.nodes)
        planned = Planning(world).plan(self.graph, targets, Mode.INCREMENTAL)
        return {"/".join(p.node.key): p.reason for p in planned if p.made}

    def test_nothing_changed_and_nothing_is_made(self) -> None:
        assert self.made(self.world()) == {}

    def test_a_change_reaches_all_that_hangs_on_it(self) -> None:
        world = self.world()
        train = ("raw", "movie_review_train")
        world.records[train] = Record(train, "old", "another code version")
        assert self.made(world) == {
            "raw/movie_review_train": "the statement changed",
            "tables/movie_review_train": "movie_review_train is made again",
            "training_sets/mine": "movie_review_train is made again",
            "models/mine": "mine is made again",
            "predictions/answers": "mine is trained again",
            "evaluations/report": "mine is trained again",
            "tables/wrong": "answers is made again",
        }

    def test_a_change_ends_where_the_content_stays(self) -> None:
        world = self.world()
        train = ("raw", "movie_review_train")
        world.records[train] = Record(train, "old", "another code version")
        world.foretells = {train: "new", ("tables", train[1]): f"{('tables', train[1])} as made"}
        assert self.made(world) == {
            "raw/movie_review_train": "the statement changed",
            "tables/movie_review_train": "movie_review_train changed",
        }

    def test_what_is_missing_is_made_and_what_was_never_made_is_new(self) -> None:
        world = self.world()
        world._present -= {"evaluations/report", "tables/wrong"}
        del world.records["tables", "wrong"]
        assert self.made(world) == {"evaluations/report": "missing", "tables/wrong": "new"}

    def test_an_asset_made_by_an_earlier_statement_is_not_made_twice(self) -> None:
        world = self.world()
        world._present.discard("tables/movie_review_test")
        planning = Planning(world)
        first = planning.plan(self.graph, [("tables", "movie_review_test")], Mode.INCREMENTAL, number=1)
        second = planning.plan(self.graph, [("tables", "movie_review_test")], Mode.INCREMENTAL, number=2)
        assert [one.node.key[0] for one in first if one.made] == ["tables"]
        assert {one.reason for one in second} == {"unchanged", "made by statement 1"}
