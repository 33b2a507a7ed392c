"""Take away each defence of docs/security.md in turn, and see that its test fails.

    python tools/check_defences.py [--only WORD]

Works in a copy of the project. Takes about ten minutes on two cores; exits with 1 if a test still passes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Defence:
    """A change that takes a defence away, and the test that must then fail.

    Attributes:
        name: What is prevented.
        file: Where, below ``thano_assets/``.
        old, new: The text that is replaced; it stands in the file.
        test: For pytest.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


DEFENCES = [
    Defence(
        "COPY from outside",
        "resources/files.py",
        "    if not any(real == root or root in real.parents for root in roots):",
        "    if False:",
        "tests/resources/test_files.py",
    ),
    Defence(
        "files read by queries",
        "planning/binding.py",
        "            if not may_be_read(workspace, read.path_or_function):",
        "            if False:",
        "tests/session/test_security.py::test_queries_read_no_files_but_data",
    ),
    Defence(
        "DuckDB's own access",
        "resources/warehouse.py",
        "SET enable_external_access = false",
        "SET enable_external_access = true",
        "tests/resources/test_warehouse.py",
    ),
    Defence(
        "settings changed by SQL",
        "resources/warehouse.py",
        'connection.execute("SET lock_configuration = true")',
        "pass",
        "tests/resources/test_warehouse.py",
    ),
    Defence(
        "formats that run code",
        "resources/files.py",
        "    if suffix in _RUNS_CODE:",
        "    if False:",
        "tests/resources/test_files.py",
    ),
    Defence(
        "a far cell",
        "resources/reading/workbook.py",
        "MOST_CELLS = 20_000_000",
        "MOST_CELLS = 10**15",
        "tests/resources/test_reading.py::TestWorkbooks",
    ),
    Defence(
        "damaged compressed files",
        "resources/reading/faults.py",
        "    except (zlib.error, EOFError) as error:",
        "    except ZeroDivisionError as error:",
        "tests/resources/test_mutated_files.py",
    ),
    Defence(
        "pickled weights",
        "learning/uploaded.py",
        "weights_only=True)",
        "weights_only=False)",
        "tests/session/test_upload.py",
    ),
    Defence(
        "code of a model",
        "learning/model_folder.py",
        'if key not in ("auto_map", "custom_pipelines")',
        "if key",
        "tests/session/test_security.py::test_no_code_of_a_model_is_run_or_kept",
    ),
    Defence(
        "foreign pages at Dagster's",
        "interfaces/dagster_page.py",
        "        refusal = self.refusal(scope)\n",
        "        refusal = None\n",
        "tests/interfaces/test_dagster_page.py",
    ),
    Defence(
        "GraphQL in an address",
        "interfaces/dagster_page.py",
        '                scope["query_string"] = b""',
        "                pass",
        "tests/interfaces/test_dagster_page.py",
    ),
    Defence(
        "foreign pages at MLflow's",
        "interfaces/ui.py",
        '_MLFLOW_HOSTS = "localhost,',
        '_MLFLOW_HOSTS = "*,localhost,',
        "tests/interfaces/test_ui.py",
    ),
    Defence(
        "other machines",
        "interfaces/processes.py",
        'HOST = "127.0.0.1"',
        'HOST = "0.0.0.0"',
        "tests/interfaces/test_ui.py",
    ),
    Defence(
        "passwords",
        "resources/settings.py",
        """    return re.sub(r"(?<=://)[^/@\\s'\\"]+@", "", text)""",
        "    return text",
        "tests/session/test_security.py::test_passwords_are_not_shown",
    ),
    Defence(
        "long texts",
        "session.py",
        "        if len(text) > longest:",
        "        if False:",
        "tests/session/test_security.py::test_texts_that_are_too_long_are_refused_before_they_are_read",
    ),
    Defence(
        "files of another machine",
        "system.py",
        "            or parts[0] != _machine()\n",
        "",
        "tests/assets/test_prediction_cache.py",
    ),
    Defence(
        "server: a request without a token",
        "interfaces/server/guard.py",
        "        if found is None and (self._needs_token or self._tokens.all()):",
        "        if False:",
        "tests/interfaces/server/test_access.py::test_nobody_is_let_in_without_a_token",
    ),
    Defence(
        "server: a token that has not the right",
        "interfaces/server/sessions.py",
        "    if token is not None and right not in token.rights:",
        "    if False:",
        "tests/interfaces/server/test_access.py::test_a_reader_changes_no_table_template_or_file",
    ),
    Defence(
        "server: another page's Origin",
        "interfaces/server/guard.py",
        "        if origins and (len(origins) > 1",
        "        if False and (len(origins) > 1",
        "tests/interfaces/server/test_access.py::test_another_web_page_is_refused",
    ),
    Defence(
        "server: a foreign Host",
        "interfaces/server/guard.py",
        "        if len(hosts) != 1 or (self._hosts is not None",
        "        if False and (self._hosts is not None",
        "tests/interfaces/server/test_access.py::test_a_foreign_name_is_refused",
    ),
    Defence(
        "server: a body without end",
        "interfaces/server/guard.py",
        "            over = over or read > self._most",
        "            over = False",
        "tests/interfaces/server/test_access.py::test_a_body_has_at_most_so_many_bytes",
    ),
    Defence(
        "server: a statement without end",
        "interfaces/server/sessions.py",
        "                with time_limit(seconds, told) as relay.to:",
        "                with time_limit(60 * seconds, told) as relay.to:",
        "tests/interfaces/server/test_access.py::test_a_statement_takes_at_most_so_long",
    ),
    Defence(
        "server: rows without end",
        "interfaces/server/sessions.py",
        "progress=relay, max_rows=self._max_rows)",
        "progress=relay)",
        "tests/interfaces/server/test_access.py::test_an_answer_has_at_most_so_many_rows",
    ),
    Defence(
        "server: files outside of data/",
        "interfaces/server/sessions.py",
        "    workspace.settings = replace(workspace.settings, files=FileSettings())",
        "    pass",
        "tests/interfaces/server/test_access.py::test_sql_reads_no_file_and_no_network",
    ),
    Defence(
        "server: paths of files",
        "interfaces/server/files.py",
        "    if not found.is_relative_to(root):",
        "    if False:",
        "tests/interfaces/server/test_access.py::test_sql_reads_no_file_and_no_network",
    ),
    Defence(
        "server: nobody let in from outside without a token",
        "interfaces/serve_commands.py",
        "    if not is_loopback(host) and not Tokens(workspace).all():",
        "    if False:",
        "tests/interfaces/server/test_access.py::test_only_this_machine_is_served_without_a_token",
    ),
    Defence(
        "server: templates that compute",
        "interfaces/server/templates.py",
        "    if next(tree.find_all(_REFUSED), None) is not None:",
        "    if False:",
        "tests/interfaces/server/test_client.py::test_a_template_can_do_no_more_than_stand_for_values",
    ),
]


def still_passes(defence: Defence, copy: Path) -> bool:
    """Whether the test passes without the defence, which is a hole in it."""
    file = copy / "thano_assets" / defence.file
    text = file.read_text(encoding="utf-8")
    if defence.old not in text:
        raise SystemExit(
            f"{defence.file} no longer has {defence.old.strip()!r}: put {defence.name} right here."
        )
    file.write_text(text.replace(defence.old, defence.new), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", *defence.test.split()],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            check=False,
            capture_output=True,
        )
    finally:
        file.write_text(text, encoding="utf-8")
    if done.returncode > 1:  # pytest found no test; a killed process counts as a failure
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return done.returncode == 0


def main() -> int:
    """Try them all."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--only", default="", help="defences whose names have this word")
    chosen = options.parse_args()
    holes = 0
    with tempfile.TemporaryDirectory(prefix="thano-defences-") as folder:
        copy = Path(folder) / "project"
        for part in ("thano_assets", "tests", "pyproject.toml", "thanosql.py"):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, copy / part)
        for defence in DEFENCES:
            if chosen.only not in defence.name:
                continue
            passes = still_passes(defence, copy)
            holes += passes
            print(f"{'NOT SEEN' if passes else 'seen'}: {defence.name} ({defence.test})", flush=True)
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
