"""The command line: what is imported, what goes to which stream, which exit code comes back."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.interfaces.conftest import Thano, environment

ROWS = """COPY reviews OPTIONS (overwrite=True) FROM '[{"id": 1, "review": "좋은 영화", "stars": 4.5},
 {"id": 2, "review": "two\\nlines, and \\"quotes\\"", "stars": null}]'"""


@pytest.fixture(scope="module")
def reviews(workspace: Path) -> None:
    """A table of two rows, made once."""
    subprocess.run(
        [sys.executable, "-m", "thano_assets.interfaces.cli", "sql", ROWS],
        env=environment(workspace),
        check=True,
        capture_output=True,
        timeout=120,
    )


# ---------------------------------------------------------------- imports

HEAVY = ("torch", "transformers", "mlflow", "dagster", "pandas")


def imported(workspace: Path, *arguments: str) -> set[str]:
    """Top-level modules in ``sys.modules`` after the command."""
    script = (
        "import sys\n"
        "from thano_assets.interfaces.cli import cli\n"
        f"code = cli({list(arguments)!r}, standalone_mode=False)\n"
        "print('modules:', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(workspace),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], []])
def test_help_imports_nothing_heavy(workspace: Path, arguments: list[str]) -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('modules:', *sorted({n.partition('.')[0] for n in sys.modules})))\n"
        "from thano_assets.interfaces.cli import main\n"
        f"sys.argv = ['thano', *{arguments!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(workspace), capture_output=True, text=True, timeout=60
    )
    modules = set(done.stdout.rpartition("modules:")[2].split())
    assert "click" in modules
    assert not modules & {*HEAVY, "duckdb", "pyarrow", "rich", "numpy", "filelock"}


def test_a_select_imports_neither_dagster_nor_learning(workspace: Path) -> None:
    modules = imported(workspace, "sql", "SELECT 1")
    assert "duckdb" in modules
    assert not modules & set(HEAVY)


# ---------------------------------------------------------------- sql


def test_a_table_and_its_counts(thano: Thano, reviews: None) -> None:
    done = thano("sql", "SELECT * FROM reviews ORDER BY id")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "2 rows × 3 columns"
    assert "좋은 영화" in done.stdout
    assert r"two\nlines" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_data_formats_give_rows_and_nothing_else(thano: Thano, reviews: None) -> None:
    query = "SELECT id, review, stars FROM reviews ORDER BY id"
    csv = thano("sql", query, "--format", "csv")
    assert csv.stdout == 'id,review,stars\n1,좋은 영화,4.5\n2,"two\nlines, and ""quotes""",\n'
    rows = json.loads(thano("sql", query, "--format", "json").stdout)
    assert rows[1] == {"id": 2, "review": 'two\nlines, and "quotes"', "stars": None}
    markdown = thano("sql", query, "--format", "markdown", "--max-rows", "1")
    assert markdown.stdout.splitlines() == [
        "| id | review | stars |",
        "| ---: | --- | ---: |",
        "| 1 | 좋은 영화 | 4.5 |",
    ]


def test_parquet_goes_through_a_pipe(workspace: Path, reviews: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thano_assets.interfaces.cli", "sql", "FROM reviews", "--format", "parquet"],
        env=environment(workspace),
        capture_output=True,
        timeout=60,
    )
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 2


def test_rows_go_to_a_file_named_with_o(thano: Thano, reviews: None, tmp_path: Path) -> None:
    done = thano("sql", "SELECT id FROM reviews ORDER BY id", "-o", str(tmp_path / "ids.json"))
    assert done.stdout == ""
    assert json.loads((tmp_path / "ids.json").read_text(encoding="utf-8")) == [{"id": 1}, {"id": 2}]
    assert thano("sql", "SELECT 1", "-o", str(tmp_path / "no" / "ids.csv")).returncode == 2


def test_several_statements_from_standard_input(thano: Thano, reviews: None) -> None:
    text = "SELECT 1 AS one; SELECT 2 AS two;\n-- the end\n"
    assert thano("sql", "-", input=text).stdout.count("1 row × 1 column") == 2
    assert json.loads(thano("sql", "-", "--format", "json", input=text).stdout) == [{"two": 2}]
    assert thano("sql", "  -- nothing").stdout == ""


def test_all_rows_are_read_but_few_are_shown(thano: Thano, workspace: Path) -> None:
    done = thano("sql", "SELECT * FROM range(1000)")
    assert done.stdout.splitlines()[-1] == "1,000 rows × 1 column (first 40 shown)"
    done = thano("sql", "SELECT * FROM range(1000)", "--max-rows", "0")
    assert done.stdout.splitlines()[-1] == "1,000 rows × 1 column"


def test_a_closed_pipe_ends_quietly(workspace: Path) -> None:
    command = (
        f"{sys.executable} -m thano_assets.interfaces.cli sql 'FROM range(300000)' --format csv | head -n 2"
    )
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(workspace),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[1] == "0"
    assert "Error" not in done.stderr
    assert "Exception" not in done.stderr


# ---------------------------------------------------------------- errors


def test_an_error_is_a_sentence_with_a_caret(thano: Thano, reviews: None) -> None:
    done = thano("sql", "SELECT id\nFROM revews", "--format", "csv")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error[unknown-table]: ")
    assert "reviews" in lines[0]
    assert lines[-2] == "line 2: FROM revews"
    assert lines[-1].index("^") == lines[-2].index("revews")


def test_an_error_from_inside_a_run_is_a_sentence_too(thano: Thano, reviews: None) -> None:
    text = "BUILD MODEL m USING ElectraEn\nOPTIONS (text_col='review', label_col='stars') AS\nSELECT * FROM reviews WHERE id = 1"
    done = thano("sql", text)
    err = done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert "error[training-data]: All 1 rows have the same label in stars (4.5)." in err
    assert "line 3: SELECT * FROM reviews WHERE id = 1" in err
    assert "Traceback" not in err


def test_verbose_adds_the_traceback(thano: Thano) -> None:
    for arguments in (["-v", "sql", "SELEC 1"], ["sql", "-v", "SELEC 1"]):
        done = thano(*arguments)
        assert done.returncode == 1
        assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["sql"],
        ["sql", "SELECT 1", "--format", "xml"],
        ["run"],
        ["run", "missing.sql"],
        ["plan", "missing.sql"],
        ["nonsense"],
        ["ui", "--port", "99999"],
    ],
)
def test_misuse_is_told_with_exit_code_2(thano: Thano, arguments: list[str]) -> None:
    done = thano(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert done.stdout == ""


def test_a_workspace_that_cannot_be_made(thano: Thano, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = thano("-w", str(tmp_path / "file"), "sql", "SELECT 1")
    assert done.returncode == 1
    assert done.stderr.startswith("error[workspace]: ")
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- init, run, plan


def test_init_makes_a_workspace_and_does_nothing_twice(thano: Thano, tmp_path: Path) -> None:
    first = thano("init", "mine", cwd=tmp_path)
    assert first.returncode == 0
    assert (tmp_path / "mine" / "thano.toml").is_file()
    (tmp_path / "mine" / "thano.toml").write_text("# changed\n")
    assert thano("init", "mine", cwd=tmp_path).returncode == 0
    assert (tmp_path / "mine" / "thano.toml").read_text() == "# changed\n"


def test_run_shows_each_statement_with_its_number_and_line(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "two.sql"
    script.write_text("-- one\nSELECT *\n  FROM range(12); -- ends\n\nSELECT 'a--b' AS t;\n")
    done = thano("run", str(script))
    assert done.returncode == 0, done.stderr
    assert f"[1/2] SELECT * FROM range(12)  {script}:2" in done.stdout
    assert "12 rows × 1 column (first 10 shown)" in done.stdout
    assert f"[2/2] SELECT 'a--b' AS t  {script}:5" in done.stdout
    assert re.search(r"^2 statements done in [\d.]+ s\.$", done.stdout, re.MULTILINE)


def test_run_reads_all_files_before_it_starts(thano: Thano, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.sql", tmp_path / "bad.sql"
    good.write_text("CREATE TABLE made_by_good AS SELECT 1 AS a;")
    bad.write_text("SELECT 1;\nBUILD MODEL m USNG x AS SELECT 1;\n")
    done = thano("run", str(good), str(bad))
    assert done.returncode == 1
    assert f"In {bad}, line 2:" in done.stderr
    assert "made_by_good" not in thano("sql", "LIST TABLE", "--format", "csv").stdout


def test_run_stops_at_the_first_error_and_says_where(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "three.sql"
    script.write_text("SELECT 1;\n\nSELECT CAST('x' AS INTEGER);\nSELECT 3 AS never;\n")
    done = thano("run", str(script))
    assert done.returncode == 1
    assert f"Statement 2 of 3 (QUERY, {script}:3) failed; the 1 after it did not run." in done.stderr
    assert "never" not in done.stdout


def test_run_finds_what_is_not_there_before_anything_runs(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "three.sql"
    script.write_text("SELECT 1 AS never;\n\nCREATE TABLE t AS SELECT * FROM nowhere;\n")
    done = thano("run", str(script))
    assert done.returncode == 1
    assert f"In {script}, line 3; no statement has run:" in done.stderr
    assert "line 3: CREATE TABLE t AS SELECT * FROM nowhere" in done.stderr
    assert "never" not in done.stdout


def test_run_of_a_file_without_statements(thano: Thano, tmp_path: Path) -> None:
    (tmp_path / "empty.sql").write_text("-- nothing yet\n")
    done = thano("run", str(tmp_path / "empty.sql"))
    assert done.returncode == 0
    assert "no statement" in done.stderr


def test_a_plan_runs_nothing(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "plan.sql"
    script.write_text("CREATE TABLE planned AS SELECT 1 AS a;")
    for target in (str(script), script.read_text()):
        done = thano("plan", target, "--format", "json")
        assert done.returncode == 0, done.stderr
        assert [row["action"] for row in json.loads(done.stdout)] == ["create"]
    assert "planned" not in thano("sql", "LIST TABLE", "--format", "csv").stdout
    other = tmp_path / "other.sql"
    other.write_text("CREATE TABLE after AS SELECT a FROM planned;")
    done = thano("plan", str(script), str(other), "--format", "json")
    assert [(row["statement"], row["asset"]) for row in json.loads(done.stdout)] == [
        (1, "tables/planned"),
        (2, "tables/after"),
    ]


def test_a_plan_lists_changes_and_checks_and_all_lists_the_rest(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "plan.sql"
    script.write_text("CREATE TABLE kept AS SELECT 1 AS a;\nEXPECT a = 1 ON kept;\n")
    assert thano("run", str(script)).returncode == 0
    script.write_text(script.read_text() + "CREATE TABLE fresh AS SELECT a FROM kept;\n")
    done = thano("plan", str(script), "--format", "json")
    assert [(row["asset"], row["action"]) for row in json.loads(done.stdout)] == [
        ("tables/kept", "check"),
        ("tables/fresh", "create"),
    ]
    assert "1 of 3 assets to make, 1 expectation to check; 2 assets are up to date" in done.stderr
    rows = json.loads(thano("plan", str(script), "--all", "--format", "json").stdout)
    assert [(row["asset"], row["action"]) for row in rows if row["action"] == "skip"] == [
        ("tables/kept", "skip"),
        ("tables/kept", "skip"),
    ]
    assert [row["estimated_seconds"] for row in rows][:2] == [0.0, 0.0]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_options_are_completed(shell: str) -> None:
    def completed(words: str, place: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from thano_assets.interfaces.cli import main; main()"],
            env={
                **os.environ,
                "_THANO_COMPLETE": f"{shell}_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": words.split(" ")[-1] if shell == "fish" else str(place),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    assert "sql" in completed("thano s", 1)
    assert "--force" in completed("thano run --fo", 2)


def test_variables_take_their_values_from_set(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "daily.sql"
    script.write_text(
        "CREATE TABLE v AS SELECT i FROM range($n) r(i);\nSELECT $who AS who, count(*) AS n FROM v;\n"
    )
    asked = ("run", str(script), "--format", "json", "--set", "n=3")
    done = thano(*asked, "--set", "who=it's; DROP TABLE v")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[1])["rows"] == [{"who": "it's; DROP TABLE v", "n": 3}]
    plan = thano("plan", str(script), "--set", "n=3", "--set", "who=x")
    assert "nothing to do" in plan.stderr
    plan = thano("plan", str(script), "--set", "n=4", "--set", "who=x", "--format", "json")
    assert [row["asset"] for row in json.loads(plan.stdout)] == ["tables/v"]
    done = thano(*asked)
    assert done.returncode == 1
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (error["code"], error["line"], error["column"]) == ("unknown-variable", 2, 8)
    done = thano(*asked, "--set", "whom=x")
    assert done.returncode == 2
    assert "no statement has the variable $whom of --set; it has $n, $who." in done.stderr
    done = thano("sql", "SELECT $a + $b AS c", "--set", "a=1", "--set", "b")
    assert done.returncode == 2
    assert "'b' is not NAME=VALUE" in done.stderr


def test_run_gives_a_line_of_json_for_each_statement(thano: Thano, tmp_path: Path) -> None:
    script = tmp_path / "two.sql"
    script.write_text("CREATE TABLE lines AS SELECT 1.5 AS a, NULL AS b;\nSELECT * FROM lines;\n")
    done = thano("run", str(script), "--format", "json")
    assert done.returncode == 0, done.stderr
    made, shown = map(json.loads, done.stdout.splitlines())
    assert (made["place"], made["assets"], made["row_count"]) == (f"{script}:1", ["tables/lines"], 1)
    assert (shown["kind"], shown["rows"]) == ("QUERY", [{"a": 1.5, "b": None}])
    assert "2 statements done" in done.stderr
    script.write_text("SELECT 1 AS a;\nSELECT CAST('x' AS INTEGER);\n")
    done = thano("run", str(script), "--format", "json")
    assert [json.loads(line)["rows"] for line in done.stdout.splitlines()] == [[{"a": 1}]]
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, error["code"], error["line"]) == (1, "query", 2)


@pytest.mark.parametrize("command", ["sql", "plan"])
def test_an_error_is_json_where_json_was_asked_for(thano: Thano, reviews: None, command: str) -> None:
    done = thano(command, "CREATE TABLE x AS\nSELECT stars FROM revews", "--format", "json")
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert error.pop("hint").startswith("Did you mean reviews? ")
    assert error == {
        "code": "unknown-table",
        "message": "There is no table revews.",
        "file": None,
        "line": 2,
        "column": 19,
        "length": 6,
    }


def test_a_narrow_terminal_shows_what_matters_first(thano: Thano, reviews: None) -> None:
    done = thano("sql", "SHOW LINEAGE reviews", COLUMNS="80")
    head = done.stdout.splitlines()[0].split()
    assert head == ["asset", "time", "rows", "model_version", "out_of_date"]
    assert "(6 columns left out; --wide shows all)" in done.stdout
    wide = thano("sql", "SHOW LINEAGE reviews", "--wide", COLUMNS="80").stdout
    assert "data_version" in wide.splitlines()[0]
    assert "…" not in wide


# ---------------------------------------------------------------- stopping


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_is_one_sentence_and_130(workspace: Path, tmp_path: Path, number: int) -> None:
    script = tmp_path / "long.sql"
    script.write_text("SELECT 1 AS started;\nSELECT count(*) FROM range(100000000) a, range(100000000) b;\n")
    with subprocess.Popen(
        [sys.executable, "-m", "thano_assets.interfaces.cli", "run", str(script)],
        env=environment(workspace),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("[2/2]"):
                break
        # The query has begun, or is about to: either way it must end.
        try:
            child.wait(timeout=0.7)
        except subprocess.TimeoutExpired:
            child.send_signal(number)
        try:
            _, said = child.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    assert child.returncode == 130
    assert said.splitlines()[-1].startswith(f"Stopped in statement 2 of 2 (QUERY, {script}:2).")
    assert "Traceback" not in said


# ---------------------------------------------------------------- du, clean, doctor --repair


def test_du_tells_each_part(thano: Thano, workspace: Path, reviews: None) -> None:
    parts = {row["part"]: row for row in json.loads(thano("du", "--format", "json").stdout)}
    assert parts["tables"]["files"] == 1
    assert parts["tables"]["mb"] == round((workspace / "warehouse.duckdb").stat().st_size / 1e6, 1)
    assert "base models" not in parts


def test_clean_tells_what_would_go_and_then_removes_it(
    thano: Thano, tmp_path: Path, reviews: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    left, recent, foreign = (tmp_path / name for name in ("thano-model-a", "thano-model-b", "thano-notes"))
    for folder in (left, recent, foreign):
        folder.mkdir()
        (folder / "weights").write_bytes(b"0" * 2_000_000)
    os.utime(left, (0, 0))
    os.utime(foreign, (0, 0))
    would = thano("clean", "--dry-run")
    assert would.returncode == 0, would.stderr
    assert re.search(r"2\.0 MB  .*thano-model-a", would.stdout)
    assert "would be freed" in would.stdout
    assert left.exists()
    done = thano("clean")
    assert done.returncode == 0, done.stderr
    assert [folder.exists() for folder in (left, recent, foreign)] == [False, True, True]
    rows = thano("sql", "SELECT count(*) AS n FROM reviews", "--format", "json").stdout
    assert json.loads(rows) == [{"n": 2}]


def test_a_workspace_in_order_needs_no_repair(thano: Thano, reviews: None) -> None:
    done = thano("doctor", "--repair")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["sql", "-"], ["run", "-"], ["plan", "-"]])
def test_standard_input_that_is_not_utf8(workspace: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thano_assets.interfaces.cli", *arguments],
        input="SELECT '좋은'".encode("cp949"),
        env=environment(workspace),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert b"standard input is not UTF-8 text (byte 8)" in done.stderr
