"""The magics in a real kernel: what a cell shows, what it gives back, and how it fails."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.interfaces.conftest import environment

ROWS = '[{"id": 1, "review": "좋은 영화"}, {"id": 2, "review": "it\'s {fine}, $1 and %s"}]'


class Kernel:
    """A notebook that grows by a cell at a time in one kernel."""

    def __init__(self, workspace: Path) -> None:
        self.notebook = nbformat.v4.new_notebook()
        self.client = NotebookClient(self.notebook, timeout=120, kernel_name="python3")
        self.context = self.client.setup_kernel(env=environment(workspace), cwd=str(workspace.parent))

    def run(self, source: str) -> list[Any]:
        """Execute a cell; returns its outputs, also when it failed."""
        cell = nbformat.v4.new_code_cell(source)
        self.notebook.cells.append(cell)
        with contextlib.suppress(CellExecutionError):
            self.client.execute_cell(cell, len(self.notebook.cells) - 1)
        return list(cell.outputs)


@pytest.fixture(scope="module")
def kernel(workspace: Path) -> Any:
    kernel = Kernel(workspace)
    with kernel.context:
        assert kernel.run("%load_ext thano_assets") == []
        yield kernel


def texts(outputs: list[Any]) -> str:
    """Everything a person reads in text form."""
    return "\n".join(
        output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
        for output in outputs
    )


def result(outputs: list[Any]) -> Any:
    """The cell's value."""
    values = [output for output in outputs if output.output_type == "execute_result"]
    assert len(values) == 1
    return values[0].data


def test_a_token_and_an_address_are_accepted(kernel: Kernel) -> None:
    said = texts(kernel.run("%thanosql API_TOKEN=<발급받은_API_TOKEN>"))
    assert "own engine" in said
    assert "발급" not in said
    assert "own engine" in texts(kernel.run("%thanosql wss://engine.example.com/ws/v1/query"))


def test_a_cell_gives_a_dataframe(kernel: Kernel) -> None:
    kernel.run(
        f"%%thanosql\nCOPY reviews\nOPTIONS (overwrite=True)\nFROM '{ROWS.replace(chr(39), chr(39) * 2)}'\n"
    )
    shown = result(kernel.run("%%thanosql\nSELECT *\nFROM reviews ORDER BY id;\n"))
    assert "좋은 영화" in shown["text/html"]
    assert "it's {fine}, $1 and %s" in shown["text/plain"]
    assert (
        kernel.run("type(_).__module__.partition('.')[0], _.shape, list(_.columns)")[0].data["text/plain"]
        == "('pandas', (2, 2), ['id', 'review'])"
    )


def test_lines_and_names(kernel: Kernel) -> None:
    assert "42" in result(kernel.run("%thanosql SELECT 42 AS answer;"))["text/plain"]
    kernel.run("frame = %thanosql SELECT 1 AS a UNION ALL SELECT 2")
    kernel.run("%thanosql kept << SELECT '{x}' AS t")
    for cell in ("%%thanosql\nother << SELECT\n 3 AS c", "%%thanosql other <<\nSELECT 3 AS c"):
        outputs = kernel.run(cell)
        assert not [output for output in outputs if output.output_type == "execute_result"]
    said = kernel.run("len(frame), kept.t[0], other.c[0].item()")[0].data["text/plain"]
    assert said == "(2, '{x}', 3)"
    assert "workspace=PATH" in texts(kernel.run("%thanosql"))


def test_variables_of_the_notebook_are_values_of_statements(kernel: Kernel) -> None:
    kernel.run('import datetime; day, word = datetime.date(2024, 1, 2), "it\'s; DROP TABLE t"')
    found = result(kernel.run("%%thanosql\nSELECT $day AS day, $word AS word, '$day' AS text"))
    assert "2024-01-02" in found["text/plain"]
    assert "it's; DROP TABLE t" in found["text/plain"]
    assert "$day" in found["text/plain"]
    (failed,) = [o for o in kernel.run("%thanosql SELECT $dya") if o.output_type == "error"]
    assert failed.evalue.startswith("There is no variable dya in the notebook. Did you mean day?")


def test_several_statements_give_the_last_ones_rows(kernel: Kernel) -> None:
    outputs = kernel.run("%%thanosql\nSELECT 1 AS one; -- a comment\nSELECT 2 AS two;\n")
    assert "two" in result(outputs)["text/plain"]
    assert "one" not in result(outputs)["text/plain"]


def test_an_error_is_a_sentence_with_a_caret_and_the_cell_fails(kernel: Kernel) -> None:
    (failed,) = [o for o in kernel.run("%%thanosql\nSELECT id\nFROM revews") if o.output_type == "error"]
    lines = failed.traceback
    assert "revews" in lines[0]
    assert "reviews" in lines[0]
    assert lines[1] == "line 2: FROM revews"
    assert lines[2].index("^") == lines[1].index("revews")
    assert "Traceback" not in "".join(lines)
    assert failed.ename == "StatementError"


def test_the_place_counts_from_the_statements_own_first_line(kernel: Kernel) -> None:
    for cell in ("%thanosql x << SELEC 1", "%%thanosql\nx << SELEC 1"):
        (failed,) = [o for o in kernel.run(cell) if o.output_type == "error"]
        assert failed.traceback[1].index("SELEC") == failed.traceback[2].index("^")


def test_progress_is_one_output(kernel: Kernel) -> None:
    outputs = kernel.run(
        "from IPython import get_ipython\n"
        "from thano_assets.interfaces import notebook\n"
        "p = notebook.progress_for(get_ipython())\n"
        "p.EVERY = 0\n"
        "with p.shown():\n"
        "    p.message('Base model: <b>')\n"
        "    p.warning('3 texts were cut.'); p.warning('3 texts were cut.')\n"
        "    with p.task('train', 100) as task:\n"
        "        for step in range(50):\n"
        "            task.advance(2, loss=1 / (step + 1))\n"
        "    p.summary('done')\n"
    )
    assert len(outputs) == 1
    assert outputs[0].data["text/plain"] == "Base model: <b>\nwarning: 3 texts were cut.\ndone"
    assert "&lt;b&gt;" in outputs[0].data["text/html"]
    assert "<progress" not in outputs[0].data["text/html"]


def test_an_interrupt_is_a_sentence_and_the_kernel_lives_on(kernel: Kernel) -> None:
    outputs = kernel.run(
        "import _thread, threading\n"
        "threading.Timer(1, lambda: __import__('os').kill(__import__('os').getpid(), 2)).start()\n"
        "get_ipython().run_cell_magic('thanosql', '', "
        "'SELECT count(*) FROM range(100000000) a, range(100000000) b')"
    )
    (failed,) = [output for output in outputs if output.output_type == "error"]
    assert failed.ename == "StatementStopped"
    assert failed.traceback == ["Stopped. What was finished before is kept; nothing is left half done."]
    assert "1" in result(kernel.run("%thanosql SELECT 1 AS alive"))["text/plain"]


def test_another_workspace(kernel: Kernel, tmp_path: Path) -> None:
    assert str(tmp_path) in texts(kernel.run(f"%thanosql workspace={tmp_path / 'other'}"))
    assert (tmp_path / "other" / "thano.toml").is_file()
    assert "Empty DataFrame" in result(kernel.run("%thanosql LIST TABLE"))["text/plain"]


def test_unloading_takes_the_magics_away_and_loading_brings_them_back(kernel: Kernel) -> None:
    kernel.run("%unload_ext thano_assets")
    assert "not found" in texts(kernel.run("%thanosql SELECT 1"))
    kernel.run("%load_ext thano_assets")
    assert "1" in result(kernel.run("%thanosql SELECT 1 AS back"))["text/plain"]


def test_an_explanation_is_shown_as_coloured_words() -> None:
    import pyarrow as pa

    from thano_assets.interfaces.notebook import explanations_of

    words = [[{"token": "boring", "weight": 3.1}, {"token": "<b>", "weight": -0.2}], None]
    table = pa.table({"predicted": ["negative", None], "explanation": words})
    shown = explanations_of(table)
    assert shown is not None
    assert shown["text/plain"] == "negative: boring +3.10, <b> -0.20\n"
    assert "&lt;b&gt;" in shown["text/html"]
    assert "<b>" not in shown["text/html"]
    assert "22, 163, 74" in shown["text/html"]
    assert "220, 38, 38" in shown["text/html"]
    assert explanations_of(pa.table({"a": [[1, 2]]})) is None
    assert explanations_of(table.slice(0, 0)) is not None


def test_the_public_clients_name_and_a_dataframe(kernel: Kernel) -> None:
    assert not [o for o in kernel.run("%load_ext thanosql") if o.output_type == "error"]
    kernel.run("import pandas as pd\nmine = pd.DataFrame({'word': ['007', '1.10', None], 'n': [1, 2, 3]})")
    assert not [
        o
        for o in kernel.run("%thanosql COPY mine OPTIONS (overwrite=True) FROM $mine")
        if o.output_type == "error"
    ]
    kernel.run("back = %thanosql SELECT * FROM mine ORDER BY n")
    assert (
        kernel.run("list(back.word)[:2], list(back.n)")[0].data["text/plain"]
        == "(['007', '1.10'], [1, 2, 3])"
    )
