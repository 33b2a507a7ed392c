"""What a change leads to: the plan says it before anything runs, and then exactly that is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from tests.session.conftest import traces
from thano_assets.errors import ThanoError
from thano_assets.graph import build
from thano_assets.resources.environments import open_workspace
from thano_assets.session import Session

SCRIPT = """\
COPY train OPTIONS (overwrite=True) FROM 'train.csv';
COPY test OPTIONS (overwrite=True) FROM 'test.csv';
COPY more OPTIONS (overwrite=True) FROM '[{"review": "lovely", "sentiment": "positive"}, \
{"review": "awful", "sentiment": "negative"}, {"review": "so good", "sentiment": "positive"}, \
{"review": "so bad", "sentiment": "negative"}]';
CREATE OR REPLACE TABLE short AS SELECT * FROM test WHERE length(review) < 15;
BUILD MODEL m USING ElectraEn OPTIONS (text_col='review', label_col='sentiment', overwrite=True, epochs=1,
    baseline=False, seed=7) AS SELECT * FROM train;
FIT MODEL m2 USING m OPTIONS (text_col='review', label_col='sentiment', overwrite=True, epochs=1,
    baseline=False) AS SELECT * FROM more;
CREATE OR REPLACE TABLE answers AS PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM test;
CREATE OR REPLACE TABLE pinned AS PREDICT USING m VERSION 1 OPTIONS (text_col='review') AS SELECT * FROM short;
CREATE OR REPLACE TABLE report AS EVALUATE USING m OPTIONS (text_col='review', label_col='sentiment')
    AS SELECT * FROM test;
CREATE OR REPLACE TABLE wrong AS SELECT * FROM answers WHERE predicted <> sentiment;
"""

ROWS = [
    (f"{'a very good film' if n % 2 else 'a bad movie'} {n}", "positive" if n % 2 else "negative")
    for n in range(16)
]


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("review,sentiment\n" + "".join(f"{text},{label}\n" for text, label in rows), "utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Path:
    """A workspace in which the script has been run once."""
    workspace = open_workspace(tmp_path_factory.mktemp("plans") / "workspace")
    base = workspace.models_cache / "google" / "electra-small-discriminator"
    base.mkdir(parents=True)
    for file in classifier.iterdir():
        shutil.copy(file, base / file.name)
    write_csv(workspace.data / "train.csv", ROWS)
    write_csv(workspace.data / "test.csv", ROWS[:6])
    with Session(workspace) as session:
        assert run(session, SCRIPT) == [
            "raw/train", "tables/train", "raw/test", "tables/test", "tables/more", "tables/short",
            "training_sets/m", "models/m", "training_sets/m2", "models/m2", "predictions/answers",
            "predictions/pinned", "evaluations/report", "tables/wrong",
        ]  # fmt: skip
    return workspace.root


@pytest.fixture
def session(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr("thano_assets.resources.registry.Registry._system_metrics", no_metrics)
    root = tmp_path / "workspace"
    shutil.copytree(finished, root)
    with Session(open_workspace(root)) as session:
        yield session


def no_metrics(registry: object, run_id: str) -> object:
    import contextlib

    return contextlib.nullcontext()


def run(session: Session, text: str, *, force: bool = False) -> list[str]:
    """Run a script as ``thano run`` does; the assets that were made."""
    steps = session.script(session.parse(text), force=force)
    return [asset for step in steps for asset in session.execute_step(step).assets]


def planned(session: Session, text: str) -> dict[str, str]:
    """What the plan would make or drop, and why."""
    rows = session.plan(text).arrow().to_pylist()
    return {row["asset"]: row["reason"] for row in rows if row["action"] != "skip"}


def marked(session: Session) -> set[str]:
    """The assets that Dagster's UI marks as out of date or missing."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    from thano_assets.graph import Graph
    from thano_assets.orchestration.factory import build_definitions
    from thano_assets.orchestration.resources import resources_for
    from thano_assets.planning.observation import observed

    graph = observed(Graph(session.catalog.entries()), session.workspace)
    assets = build_definitions(graph, resources_for(session.workspace)).resolve_asset_graph()
    instance = session._open_runner().instance
    resolver = CachingStaleStatusResolver(instance, assets, LoadingContextForTest(instance))
    found = {key for key in graph.nodes if graph.nodes[key].kind is not build.NodeKind.MODEL_VERSION}
    return {
        "/".join(key) for key in found if resolver.get_status(dg.AssetKey(list(key))) is not StaleStatus.FRESH
    }


def edit(old: str, new: str) -> Callable[[Session, str], str]:
    def change(session: Session, text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def data(
    name: str, change: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
) -> Callable[[Session, str], str]:
    def changed(session: Session, text: str) -> str:
        path = session.workspace.data / name
        lines = path.read_text("utf-8").splitlines()[1:]
        rows = [(line.rpartition(",")[0], line.rpartition(",")[2]) for line in lines]
        write_csv(path, change(rows))
        return text

    return changed


def act(text: str) -> Callable[[Session, str], str]:
    """Something done by hand in between."""

    def done(session: Session, script: str) -> str:
        session.execute(text)
        return script

    return done


def new_code(kind: build.NodeKind) -> Callable[[Session, str], str]:
    def changed(session: Session, text: str) -> str:
        build.CODE_VERSIONS[kind] += " and on"  # put back by the fixture
        return text

    return changed


def other_base(session: Session, text: str) -> str:
    config = session.workspace.models_cache / "google" / "electra-small-discriminator" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "initializer_range": 0.019}))
    return text


def touch(session: Session, text: str) -> str:
    for file in session.workspace.data.glob("*.csv"):
        file.write_bytes(file.read_bytes())
    return text


@pytest.fixture(autouse=True)
def code_versions() -> Iterator[None]:
    before = dict(build.CODE_VERSIONS)
    yield
    build.CODE_VERSIONS.update(before)


TRAINED = "m is trained again"
AFTER_MODEL = {
    "models/m2": TRAINED,
    "predictions/answers": TRAINED,
    "evaluations/report": TRAINED,
    "tables/wrong": "answers is made again",
}


@dataclass
class Edit:
    """What is changed, and all that follows: assets with their reasons."""

    what: str
    change: Callable[[Session, str], str]
    made: dict[str, str]


def model_option(old: str, new: str, reason: str) -> Edit:
    return Edit(f"BUILD MODEL {new}", edit(old, new), {"models/m": reason, **AFTER_MODEL})


EDITS = [
    Edit("nothing", lambda session, text: text, {}),
    Edit("white space, comments, case", edit("SELECT * FROM train", "-- all\n select  *\nfrom TRAIN"), {}),
    Edit("order of options", edit("text_col='review', label_col='sentiment', overwrite=True, epochs=1,\n    baseline=False, seed=7", "seed=7, baseline=False, epochs=1, overwrite=True, label_col='sentiment', text_col='review'"), {}),
    Edit("an alias of an option", edit("epochs=1,\n    baseline=False, seed=7", "max_epochs=1,\n    baseline=False, seed=7"), {}),
    Edit("an option's default spelt out", edit("seed=7)", "seed=7, batch_size=16)"), {}),
    Edit("overwrite", edit("'sentiment', overwrite=True, epochs=1,\n    baseline=False, seed=7", "'sentiment', epochs=1,\n    baseline=False, seed=7"), {}),
    Edit("file times", touch, {}),
    Edit("a schedule", edit("seed=7)", "seed=7, schedule='0 3 * * 1')"), {}),
    Edit(
        "order of a file's rows",
        data("train.csv", lambda rows: rows[::-1]),
        {"raw/train": "train.csv changed", "tables/train": "train.csv changed, its rows did not"},
    ),
    Edit(
        "one label",
        data("train.csv", lambda rows: [(rows[0][0], "positive"), *rows[1:]]),
        {
            "raw/train": "train.csv changed",
            "tables/train": "1 row of train.csv changed",
            "training_sets/m": "1 row of train changed",
            "models/m": "1 row of the training set changed",
            **AFTER_MODEL,
        },
    ),
    Edit(
        "rows added to the test file",
        data("test.csv", lambda rows: [*rows, ("what a long film that is", "negative"), ("good", "positive")]),
        {
            "raw/test": "test.csv changed",
            "tables/test": "2 rows of test.csv added",
            "tables/short": "2 rows of test added",
            "predictions/answers": "2 rows of test added",
            "predictions/pinned": "1 row of short added",
            "evaluations/report": "2 rows of test added",
            "tables/wrong": "answers is made again",
        },
    ),
    Edit(
        "a row that a query leaves out",
        data("test.csv", lambda rows: [*rows, ("a film that is too long for the query", "positive")]),
        {
            "raw/test": "test.csv changed",
            "tables/test": "1 row of test.csv added",
            "tables/short": "1 row of test added",
            "predictions/answers": "1 row of test added",
            "evaluations/report": "1 row of test added",
            "tables/wrong": "answers is made again",
        },
    ),
    Edit(
        "rows removed from the test file",
        data("test.csv", lambda rows: rows[1:]),
        {
            "raw/test": "test.csv changed",
            "tables/test": "1 row of test.csv removed",
            "tables/short": "1 row of test removed",
            "predictions/answers": "1 row of test removed",
            "predictions/pinned": "1 row of short removed",
            "evaluations/report": "1 row of test removed",
            "tables/wrong": "answers is made again",
        },
    ),
    Edit(
        "another file of the same content",
        lambda session, text: (
            shutil.copy(session.workspace.data / "train.csv", session.workspace.data / "again.csv"),
            text.replace("'train.csv'", "'again.csv'"),
        )[1],
        {"raw/train": "the path changed from 'train.csv' to 'again.csv'", "tables/train": "the path changed from 'train.csv' to 'again.csv'"},
    ),
    Edit(
        "inline rows",
        edit('"lovely"', '"very lovely"'),
        {
            "tables/more": "the inline rows changed",
            "training_sets/m2": "1 row of more changed",
            "models/m2": "1 row of the training set changed",
        },
    ),
    Edit("white space in inline rows", edit('"lovely",', '"lovely" ,'), {"tables/more": "the inline rows changed"}),
    Edit(
        "a table's query",
        edit("length(review) < 15", "length(review) < 15 AND review <> 'a bad movie 0'"),
        {"tables/short": "the query changed", "predictions/pinned": "1 row of short removed"},
    ),
    Edit(
        "a table's query, with the same rows",
        edit("length(review) < 15", "length(review) <= 14"),
        {"tables/short": "the query changed"},
    ),
    Edit(
        "the training query, with the same rows",
        edit("SELECT * FROM train;", "SELECT review, sentiment FROM train;"),
        {"training_sets/m": "the query changed"},
    ),
    Edit(
        "the training query",
        edit("SELECT * FROM train;", "SELECT * FROM train LIMIT 10;"),
        {"training_sets/m": "the query changed", "models/m": "6 rows of the training set removed", **AFTER_MODEL},
    ),
    model_option("epochs=1,\n    baseline=False, seed=7", "epochs=2,\n    baseline=False, seed=7", "max_epochs changed from 1 to 2"),
    model_option("seed=7)", "seed=8)", "seed changed from 7 to 8"),
    model_option("seed=7)", "seed=7, learning_rate=0.001)", "learning_rate changed from None to 0.001"),
    model_option("seed=7)", "seed=7, max_length=8)", "max_length changed from None to 8"),
    model_option("seed=7)", "seed=7, class_weight='balanced')", "class_weight changed from None to 'balanced'"),
    model_option("seed=7)", "seed=7, eval_fraction=0.25)", "eval_fraction changed from 0.1 to 0.25"),
    model_option("seed=7)", "seed=7, train='head')", "train changed from 'full' to 'head'"),
    Edit(
        "label_col, to a column with the same labels",
        edit(
            "label_col='sentiment', overwrite=True, epochs=1,\n    baseline=False, seed=7) AS SELECT * FROM train;",
            "label_col='feeling', overwrite=True, epochs=1,\n    baseline=False, seed=7) AS SELECT *, sentiment AS feeling FROM train;",
        ),
        {
            "training_sets/m": "label_col changed from 'sentiment' to 'feeling'; the query changed",
            "models/m": "label_col changed from 'sentiment' to 'feeling'; "
            "the names or the label type of the training set changed",
            **AFTER_MODEL,
        },
    ),
    Edit(
        "FIT MODEL's option",
        edit("epochs=1,\n    baseline=False) AS SELECT * FROM more", "epochs=2,\n    baseline=False) AS SELECT * FROM more"),
        {"models/m2": "max_epochs changed from 1 to 2"},
    ),
    Edit(
        "PREDICT's option",
        edit("OPTIONS (text_col='review') AS SELECT * FROM test", "OPTIONS (text_col='review', proba=False) AS SELECT * FROM test"),
        {"predictions/answers": "proba changed from True to False", "tables/wrong": "answers is made again"},
    ),
    Edit(
        "PREDICT's model",
        edit("answers AS PREDICT USING m ", "answers AS PREDICT USING m2 "),
        {"predictions/answers": "the model changed from m to m2", "tables/wrong": "answers is made again"},
    ),
    Edit(
        "PREDICT's query",
        edit("AS SELECT * FROM test;\nCREATE OR REPLACE TABLE pinned", "AS SELECT * FROM test LIMIT 3;\nCREATE OR REPLACE TABLE pinned"),
        {"predictions/answers": "the query changed", "tables/wrong": "answers is made again"},
    ),
    Edit(
        "EVALUATE's option",
        edit("OPTIONS (text_col='review', label_col='sentiment')\n", "OPTIONS (text_col='review', label_col='sentiment', report='classes')\n"),
        {"evaluations/report": "report changed from 'summary' to 'classes'"},
    ),
    Edit(
        "the base model's files",
        other_base,
        {"models/m": "the base model changed", **AFTER_MODEL},
    ),
    Edit(
        "the trainer's code",
        new_code(build.NodeKind.MODEL),
        {
            "models/m": "this version of Thano makes models in another way",
            **AFTER_MODEL,
            "models/m2": "this version of Thano makes models in another way; m is trained again",
        },
    ),
    Edit(
        "the code of predictions",
        new_code(build.NodeKind.PREDICTION),
        {
            "predictions/answers": "this version of Thano makes predictions in another way",
            "predictions/pinned": "this version of Thano makes predictions in another way",
            "tables/wrong": "answers is made again",
        },
    ),
    Edit("a new statement", lambda session, text: text + "CREATE TABLE good AS SELECT * FROM train WHERE sentiment = 'positive';", {"tables/good": "new"}),
    Edit("a table that is gone", act("DROP TABLE wrong"), {"tables/wrong": "new"}),
]  # fmt: skip


@pytest.mark.parametrize("case", EDITS, ids=lambda case: case.what)
def test_the_plan_says_what_a_change_leads_to_and_exactly_that_is_done(session: Session, case: Edit) -> None:
    text = case.change(session, SCRIPT)
    before = traces(session)
    plan = planned(session, text)
    assert traces(session) == before
    if case.change is other_base:
        assert plan["models/m"].startswith("the base model changed from ")
        plan["models/m"] = case.made["models/m"]
    assert plan == case.made
    if text == SCRIPT:  # else Dagster does not know the new statement yet
        assert marked(session) <= set(plan)
        assert bool(marked(session)) == any(reason != "new" for reason in plan.values())
    assert run(session, text) == list(plan)
    assert planned(session, text) == {}
    assert marked(session) == set()


def test_force_does_everything(session: Session, finished: Path) -> None:
    versions = len(session._runtime.registry.versions("m"))
    assert len(run(session, SCRIPT, force=True)) == 14
    assert len(session._runtime.registry.versions("m")) == versions + 1


def test_a_promotion_by_hand_refreshes_what_the_model_answered(session: Session) -> None:
    text = SCRIPT.replace("seed=7)", "seed=7, learning_rate=0.01)")
    run(session, text)
    session.execute("PROMOTE MODEL m VERSION 1")
    why = "version 1 of m answers now, not version 2"
    assert planned(session, text) == {
        "models/m2": why,
        "predictions/answers": why,
        "evaluations/report": why,
        "tables/wrong": "answers is made again",
    }
    assert {"models/m2", "predictions/answers", "evaluations/report"} <= marked(session)
    assert run(session, text) == ["models/m2", "predictions/answers", "evaluations/report", "tables/wrong"]
    assert planned(session, text) == {}
    assert marked(session) == set()


def test_a_promotion_in_a_script_refreshes_what_stands_after_it(session: Session) -> None:
    run(session, SCRIPT.replace("seed=7)", "seed=7, learning_rate=0.01)"))
    answers = SCRIPT[
        SCRIPT.index("CREATE OR REPLACE TABLE answers") : SCRIPT.index("CREATE OR REPLACE TABLE pinned")
    ]
    text = f"PROMOTE MODEL m VERSION 1; {answers}"
    assert planned(session, text) == {"predictions/answers": "version 1 of m answers now, not version 2"}
    assert run(session, text) == ["predictions/answers"]
    assert run(session, text) == []


def test_a_version_that_was_trained_from_the_very_same_answers_again_untrained(session: Session) -> None:
    versions = len(session._runtime.registry.versions("m"))
    run(session, SCRIPT.replace("seed=7)", "seed=7, learning_rate=0.01)"))
    assert planned(session, SCRIPT)["models/m"] == (
        "learning_rate changed from 0.01 to None; version 1 was trained from the very same"
    )
    assert run(session, SCRIPT)[0] == "models/m"
    registry = session._runtime.registry
    assert len(registry.versions("m")) == versions + 1
    champion = registry.champion("m")
    assert champion is not None
    assert champion.version == 1
    assert planned(session, SCRIPT) == {}


class TestHazards:
    """The order of a script's statements counts, in its second run too."""

    def rows(self, session: Session, table: str) -> int:
        return int(session.execute(f"SELECT count(*) AS n FROM {table}").arrow().column("n")[0].as_py())

    def twice(self, session: Session, text: str) -> list[str]:
        """What a first run makes; a second run of the same finds nothing to do."""
        made = run(session, text)
        assert planned(session, text) == {}
        assert run(session, text) == []
        return made

    def test_read_after_write(self, session: Session) -> None:
        text = "COPY t FROM 'test.csv'; CREATE OR REPLACE TABLE u AS SELECT * FROM t"
        assert self.twice(session, text) == ["raw/t", "tables/t", "tables/u"]

    def test_write_after_read(self, session: Session) -> None:
        session.execute("CREATE TABLE t AS SELECT 1 AS a")
        text = "CREATE OR REPLACE TABLE u AS SELECT * FROM t; CREATE OR REPLACE TABLE t AS SELECT 2 AS a"
        assert run(session, text) == ["tables/u", "tables/t"]
        assert session.execute("SELECT a FROM u").arrow().column("a").to_pylist() == [1]
        # The reader stands before the writer: in the next run it reads what the writer left.
        assert run(session, text) == ["tables/u"]
        assert session.execute("SELECT a FROM u").arrow().column("a").to_pylist() == [2]
        assert run(session, text) == []

    def test_write_after_write_with_a_reader_in_between(self, session: Session) -> None:
        text = (
            "CREATE OR REPLACE TABLE t AS SELECT * FROM train LIMIT 4;"
            "CREATE OR REPLACE TABLE u AS SELECT count(*) AS n FROM t;"
            "CREATE OR REPLACE TABLE t AS SELECT * FROM train LIMIT 2;"
            "CREATE OR REPLACE TABLE v AS SELECT count(*) AS n FROM t"
        )
        assert self.twice(session, text) == ["tables/t", "tables/u", "tables/t", "tables/v"]
        assert [self.first(session, name) for name in "uv"] == [4, 2]
        # A change of what is read in between runs the writer before it, and the one after it too.
        changed = text.replace("LIMIT 4", "LIMIT 5")
        assert list(planned(session, changed)) == ["tables/t", "tables/u"]
        assert run(session, changed) == ["tables/t", "tables/u", "tables/t"]
        assert [self.first(session, name) for name in "uv"] == [5, 2]
        assert self.rows(session, "t") == 2
        assert run(session, changed) == []
        # A change of the reader alone needs the first content too.
        again = changed.replace("SELECT count(*) AS n FROM t;", "SELECT count(*) + 1 AS n FROM t;", 1)
        assert run(session, again) == ["tables/t", "tables/u", "tables/t"]
        assert self.first(session, "u") == 6

    def first(self, session: Session, table: str) -> int:
        return int(session.execute(f"SELECT n FROM {table}").arrow().column("n")[0].as_py())

    def test_drop_and_make_again(self, session: Session) -> None:
        text = "DROP TABLE IF EXISTS t; COPY t FROM 'test.csv'"
        assert self.twice(session, text) == ["raw/t", "tables/t"]
        write_csv(session.workspace.data / "test.csv", ROWS[:3])
        plan = session.plan(text).arrow().to_pylist()
        assert [(row["asset"], row["action"]) for row in plan] == [
            ("tables/t", "drop"),
            ("raw/t", "rebuild"),
            ("tables/t", "rebuild"),
        ]
        assert run(session, text) == ["raw/t", "tables/t"]
        assert self.rows(session, "t") == 3

    def test_drop_and_make_if_it_is_not_there(self, session: Session) -> None:
        text = "DROP TABLE IF EXISTS t; CREATE TABLE IF NOT EXISTS t AS SELECT * FROM test"
        assert self.twice(session, text) == ["tables/t"]
        assert run(session, text.replace("FROM test", "FROM train")) == ["tables/t"]
        assert self.rows(session, "t") == len(ROWS)

    def test_make_read_and_drop(self, session: Session) -> None:
        text = (
            "COPY t FROM 'test.csv'; CREATE OR REPLACE TABLE u AS SELECT count(*) AS n FROM t; DROP TABLE t"
        )
        assert self.twice(session, text) == ["raw/t", "tables/t", "tables/u"]
        assert not session._runtime.warehouse.exists("t")
        write_csv(session.workspace.data / "test.csv", ROWS[:3])
        assert run(session, text) == ["raw/t", "tables/t", "tables/u"]
        assert self.first(session, "u") == 3
        assert not session._runtime.warehouse.exists("t")
        assert run(session, text) == []

    def test_append_is_not_done_twice(self, session: Session) -> None:
        text = "COPY t FROM 'test.csv'; COPY t OPTIONS (if_exists='append') FROM 'train.csv'"
        assert self.twice(session, text) == ["raw/t", "tables/t"]
        assert self.rows(session, "t") == 22
        write_csv(session.workspace.data / "train.csv", ROWS[:1])
        assert run(session, text) == ["raw/t", "tables/t"]
        assert self.rows(session, "t") == 7

    def test_append_in_a_script_of_its_own_is_not_done_twice(self, session: Session) -> None:
        session.execute("COPY t FROM 'test.csv'")
        text = "COPY t OPTIONS (if_exists='append') FROM 'train.csv'"
        assert self.twice(session, text) == ["raw/t", "tables/t"]
        assert self.rows(session, "t") == 22
        twice = f"{text};{text}"
        assert run(session, twice) == ["raw/t", "tables/t"]
        assert self.rows(session, "t") == 38
        assert run(session, twice) == []
        run(session, twice, force=True)
        assert self.rows(session, "t") == 38

    def test_append_with_a_reader_in_between(self, session: Session) -> None:
        text = (
            "COPY t FROM 'test.csv'; CREATE OR REPLACE TABLE u AS SELECT count(*) AS n FROM t;"
            "COPY t OPTIONS (if_exists='append') FROM 'train.csv'"
        )
        run(session, text)
        assert self.first(session, "u") == 6
        assert run(session, text) == []
        write_csv(session.workspace.data / "test.csv", ROWS[:3])
        run(session, text)
        assert self.first(session, "u") == 3
        assert self.rows(session, "t") == 19
        assert run(session, text) == []

    def test_delete_model_and_build_it_again(self, session: Session) -> None:
        build_n = (
            "BUILD MODEL n USING ElectraEn OPTIONS (text_col='review', label_col='sentiment', epochs=1, "
            "baseline=False) AS SELECT * FROM train"
        )
        session.execute(build_n)
        text = f"DELETE MODEL n; {build_n}"
        assert run(session, text) == []
        write_csv(session.workspace.data / "train.csv", ROWS[:10])
        run(session, "COPY train OPTIONS (overwrite=True) FROM 'train.csv'")
        assert run(session, text) == ["training_sets/n", "models/n"]
        assert len(session._runtime.registry.versions("n")) == 1
        assert run(session, text) == []

    def test_build_and_fit_under_one_name(self, session: Session) -> None:
        options = "text_col='review', label_col='sentiment', epochs=1, baseline=False, overwrite=True"
        text = (
            f"BUILD MODEL n USING ElectraEn OPTIONS ({options}) AS SELECT * FROM train;"
            f"FIT MODEL n USING n OPTIONS ({options}) AS SELECT * FROM more"
        )
        assert self.twice(session, text) == ["training_sets/n", "models/n"] * 2
        versions = session._runtime.registry.versions("n")
        assert [version.version for version in versions] == [1, 2]
        changed = text.replace("FROM train", "FROM train LIMIT 12")
        assert run(session, changed) == ["training_sets/n", "models/n"] * 2
        assert len(session._runtime.registry.versions("n")) == 4
        assert run(session, changed) == []

    def test_an_expectation_stated_before_a_reader_keeps_it_from_running(self, session: Session) -> None:
        text = "COPY t FROM 'test.csv'; EXPECT length(review) > 12 ON t; CREATE TABLE u AS SELECT * FROM t"
        with pytest.raises(ThanoError, match="break EXPECT"):
            run(session, text.replace("12", "13"))
        assert not session._runtime.warehouse.exists("u")
        assert run(session, f"DROP EXPECT ON t; {text}") == ["tables/u"]

    def test_an_error_in_a_later_statement_is_found_before_the_first_one_runs(self, session: Session) -> None:
        before = traces(session)
        with pytest.raises(ThanoError, match="no table tset"):
            run(session, "CREATE TABLE t AS SELECT 1 AS a; CREATE TABLE u AS SELECT * FROM tset")
        assert traces(session) == before
