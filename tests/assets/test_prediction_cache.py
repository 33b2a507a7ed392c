"""Kept answers: whole files, found again, never in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from thano_assets.assets.predictions import prediction_cache as module
from thano_assets.assets.predictions.prediction_cache import (
    PredictionCache,
    forget,
    has_text,
    size,
    text_key,
    unanswered,
)
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.model_version import ModelVersion
from thano_assets.resources.workspace import Workspace
from thano_assets.system import scratch_path


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    """A version with a folder of small files."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"thano_text": {"max_length": 64}}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return ModelVersion(
        name="m",
        version=1,
        aliases=("champion",),
        run_id="r",
        locate=lambda: tmp_path,
        tags={"thano.data_version": "a" * 32},
        metrics={},
        params={},
        created=datetime.now(UTC),
    )


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def keep(
    answers: PredictionCache, connection: duckdb.DuckDBPyConnection, *texts: str, p: float = 0.25
) -> None:
    """Keep the same answer for each of ``texts``."""
    connection.execute(
        f"CREATE OR REPLACE TABLE new AS SELECT {text_key('t')} AS key, "
        f"CAST([{p}, {1 - p}] AS FLOAT[]) AS p, 0 AS cut FROM (SELECT unnest($texts) AS t)",
        {"texts": list(texts)},
    )
    answers.keep(connection, "new")


def recalled(
    answers: PredictionCache, connection: duckdb.DuckDBPyConnection, *texts: str
) -> dict[str, list[float]]:
    """The kept probabilities of those of ``texts`` that have some."""
    connection.execute(
        f"CREATE OR REPLACE TABLE asked AS SELECT t, {text_key('t')} AS key FROM (SELECT unnest($texts) AS t)",
        {"texts": list(texts)},
    )
    connection.execute("DROP TABLE IF EXISTS found")
    answers.recall(connection, "SELECT DISTINCT key FROM asked", "found")
    return dict(connection.execute("SELECT t, p FROM asked JOIN found USING (key)").fetchall())


class TestTexts:
    def test_blank_means_what_it_means_to_python(self, connection: duckdb.DuckDBPyConnection) -> None:
        import pyarrow as pa

        letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
        rows = pa.table({"text": [*letters, None, "", " \t\u3000 "]})
        connection.register("given", rows)
        found = connection.execute(f"SELECT text, {has_text('text')} FROM given").fetchall()
        assert [row for row in found if row[1] != bool(row[0] and row[0].strip())] == []

    def test_the_key_is_half_of_a_sha256_of_the_bytes(self, connection: duckdb.DuckDBPyConnection) -> None:
        import hashlib

        text = "영화 리뷰\n with two lines"
        found = connection.execute(f"SELECT {text_key('?')}", [text]).fetchall()[0][0]
        assert found == uuid.UUID(hashlib.sha256(text.encode()).hexdigest()[:32])


class TestKeeping:
    def test_what_is_kept_is_found_again(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        answers = PredictionCache.of(version, workspace)
        assert recalled(answers, connection, "a") == {}
        keep(answers, connection, "a", "b")
        keep(answers, connection, "c", p=0.75)
        assert recalled(answers, connection, "a", "c", "d") == {"a": [0.25, 0.75], "c": [0.75, 0.25]}

    def test_two_answers_to_one_text_give_the_same_one_always(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        answers = PredictionCache.of(version, workspace)
        keep(answers, connection, "a", p=0.5)
        keep(answers, connection, "a", p=0.25)
        assert recalled(answers, connection, "a") == {"a": [0.25, 0.75]}
        for number in range(module.MOST_PARTS):
            keep(answers, connection, str(number))
        answers.tidy(workspace)
        assert len(answers.parts()) == 1
        assert recalled(answers, connection, "a") == {"a": [0.25, 0.75]}

    @pytest.mark.parametrize("changed", ["config.json", "tokenizer.json"])
    def test_another_text_limit_or_tokenizer_knows_no_answer(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection, changed: str
    ) -> None:
        keep(PredictionCache.of(version, workspace), connection, "a")
        (version.path / changed).write_text('{"thano_text": {"max_length": 8}}')
        assert recalled(PredictionCache.of(version, workspace), connection, "a") == {}

    def test_other_weights_know_no_answer(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        keep(PredictionCache.of(version, workspace), connection, "a")
        other = replace(version, version=2, tags={"thano.data_version": "b" * 32})
        assert recalled(PredictionCache.of(other, workspace), connection, "a") == {}
        same = replace(version, version=3)
        assert recalled(PredictionCache.of(same, workspace), connection, "a") == {"a": [0.25, 0.75]}

    def test_a_version_that_was_not_made_here_has_answers_of_its_own(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        bare = replace(version, tags={})
        other = replace(bare, run_id="another")
        keep(PredictionCache.of(bare, workspace), connection, "a")
        assert recalled(PredictionCache.of(bare, workspace), connection, "a") == {"a": [0.25, 0.75]}
        assert recalled(PredictionCache.of(other, workspace), connection, "a") == {}
        forget(workspace, bare.data_version)
        assert recalled(PredictionCache.of(bare, workspace), connection, "a") == {}

    def test_an_environment_reads_the_answers_of_production_and_writes_its_own(
        self, tmp_path: Path, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        production, environment = (open_workspace(tmp_path / name) for name in ("production", "environment"))
        environment.production = production
        keep(PredictionCache.of(version, production), connection, "a")
        borrowing = PredictionCache.of(version, environment)
        keep(borrowing, connection, "b")
        assert set(recalled(borrowing, connection, "a", "b")) == {"a", "b"}
        assert set(recalled(PredictionCache.of(version, production), connection, "a", "b")) == {"a"}

    def test_a_spoilt_file_is_given_up_and_the_others_answer(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        answers = PredictionCache.of(version, workspace)
        keep(answers, connection, "a")
        keep(answers, connection, "b")
        spoilt = answers.parts()[0]
        spoilt.write_bytes(spoilt.read_bytes()[:40])
        assert set(recalled(answers, connection, "a", "b")) == {"b"}
        assert spoilt not in answers.parts()


class TestRemoval:
    def test_forgetting_a_version_leaves_the_others(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        other = replace(version, tags={"thano.data_version": "b" * 32})
        for one in (version, other):
            keep(PredictionCache.of(one, workspace), connection, "a")
        assert size(workspace)[0] == 2
        forget(workspace, "a" * 32)
        assert size(workspace)[0] == 1
        assert recalled(PredictionCache.of(version, workspace), connection, "a") == {}
        assert recalled(PredictionCache.of(other, workspace), connection, "a") != {}

    def test_the_least_lately_used_versions_make_room(
        self,
        workspace: Workspace,
        version: ModelVersion,
        connection: duckdb.DuckDBPyConnection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made = []
        for number, letter in enumerate("abc"):
            answers = PredictionCache.of(
                replace(version, tags={"thano.data_version": letter * 32}), workspace
            )
            keep(answers, connection, "a")
            os.utime(answers.folder, (number, number))
            made.append(answers)
        used = made[0]
        monkeypatch.setattr(module, "MOST_BYTES", 2 * size(workspace)[1] // 3)
        used.tidy(workspace)
        assert [bool(one.parts()) for one in made] == [True, False, True]

    def test_what_a_dead_process_was_writing_is_removed_and_the_living_are_left_alone(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        answers = PredictionCache.of(version, workspace)
        keep(answers, connection, "a")
        living = scratch_path(answers.folder)
        dead = living.with_name(living.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
        machine = living.name.removeprefix(".stage-").partition("-")[0]
        elsewhere = dead.with_name(dead.name.replace(machine, "0" * 8))  # on a disk that two machines share
        for path in (dead, living, elsewhere):
            path.write_text("half")
        answers.tidy(workspace)
        assert not dead.exists()
        assert living.exists()
        assert elsewhere.exists()


class TestUnanswered:
    def test_distinct_texts_count_once_and_missing_ones_never(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        connection.execute(
            "CREATE TABLE \"my rows\" AS SELECT unnest(['a', 'a', 'b', NULL, '', ' ', 'c']) AS \"the text\""
        )

        def ask(relation: str) -> int:
            return unanswered(connection, relation, "the text", PredictionCache.of(version, workspace))

        assert ask('"my rows"') == 3
        keep(PredictionCache.of(version, workspace), connection, "a")
        assert ask('"my rows"') == 2
        assert ask("""SELECT * FROM "my rows" WHERE "the text" <> 'b'""") == 1

    def test_the_warehouse_may_ask(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        from thano_assets.resources.warehouse import Warehouse

        keep(PredictionCache.of(version, workspace), connection, "a")
        with Warehouse.of(workspace).read() as reading:
            assert (
                unanswered(
                    reading, "SELECT unnest(['a', 'b']) AS t", "t", PredictionCache.of(version, workspace)
                )
                == 1
            )


_WRITER = """
import sys
import duckdb
from pathlib import Path
from thano_assets.assets.predictions.prediction_cache import PredictionCache, text_key
from thano_assets.resources.workspace import Workspace

folder, name, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
answers, workspace = PredictionCache(folder), Workspace(sys.argv[4])
with duckdb.connect() as connection:
    for number in range(rounds):
        connection.execute(
            f"CREATE OR REPLACE TABLE new AS SELECT {text_key('t')} AS key, [0.5, 0.5]::FLOAT[] AS p, 0 AS cut "
            f"FROM (SELECT '{name} {number} ' || range AS t FROM range(2000))"
        )
        answers.keep(connection, "new")
        answers.tidy(workspace)
        print(number, flush=True)
"""


def _writer(folder: Path, name: str, rounds: int, workspace: Workspace) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(folder), name, str(rounds), str(workspace.root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


class TestProcesses:
    def test_a_kill_leaves_whole_files(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        answers = PredictionCache.of(version, workspace)
        process = _writer(answers.folder, "text", 100_000, workspace)
        assert process.stdout is not None
        for _ in range(5):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        whole = connection.execute(
            "SELECT count(*), count(DISTINCT key) FROM read_parquet(?)",
            [[str(part) for part in answers.parts()]],
        ).fetchall()[0]
        assert whole[0] % 2000 == 0
        assert whole[1] >= 2000 * (last + 1)
        assert set(recalled(answers, connection, "text 0 0", f"text {last} 1999")) == {
            "text 0 0",
            f"text {last} 1999",
        }

    def test_two_processes_add_while_a_third_reads_and_files_are_made_one(
        self, workspace: Workspace, version: ModelVersion, connection: duckdb.DuckDBPyConnection
    ) -> None:
        answers = PredictionCache.of(version, workspace)
        rounds = module.MOST_PARTS
        processes = [_writer(answers.folder, name, rounds, workspace) for name in ("one", "two")]
        seen = 0
        while any(process.poll() is None for process in processes):
            found = recalled(answers, connection, *(f"one {number} 7" for number in range(rounds)))
            assert len(found) >= seen
            seen = len(found)
        for process in processes:
            assert process.stdout is not None
            process.stdout.close()
        assert [process.returncode for process in processes] == [0, 0]
        texts = [f"{name} {number} 7" for name in ("one", "two") for number in range(rounds)]
        assert len(recalled(answers, connection, *texts)) == 2 * rounds
        assert len(answers.parts()) <= rounds
