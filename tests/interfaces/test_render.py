"""Tables fit the terminal, hostile text stays text, progress is told once and plainly."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from rich.cells import cell_len
from rich.console import Console

from thano_assets.errors import SyntaxProblem
from thano_assets.interfaces import render


def drawn(table: pa.Table, width: int, total: int | None = None, terminal: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, no_color=True, color_system=None)
    render.show_table(table, console, total)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("columns", [1, 3, 30])
def test_no_line_is_wider_than_the_terminal(width: int, columns: int) -> None:
    table = pa.table(
        {f"column_{n}": ["word " * (n + 1) * 5, "한국어 텍스트 분류 " * 4] for n in range(columns)}
    )
    lines = drawn(table, width)
    assert max(map(cell_len, lines[:-1])) <= width  # the line of counts may be wrapped by the terminal
    assert len(lines) == 2 + 2 + 1  # head, rule, two rows, counts: nothing is wrapped


def test_the_counts_tell_what_is_not_shown() -> None:
    table = pa.table({f"c{n}": ["x" * 20] for n in range(30)})
    assert drawn(table, 60, total=1000)[-1].startswith("1,000 rows × 30 columns (first 1 shown, ")
    assert drawn(pa.table({"a": [1]}), 60)[-1] == "1 row × 1 column"


def test_one_wide_row_is_shown_as_a_record() -> None:
    lines = drawn(pa.table({"model": ["m"], "accuracy": [0.8651], "note": ["word " * 30], "run": [None]}), 60)
    assert lines[:2] == ["model     m", "accuracy  0.8651"]
    assert lines[2].startswith("note      word word")
    assert lines[2].endswith("…")
    assert cell_len(lines[2]) == 60
    assert lines[3:] == ["run       NULL", "1 row × 4 columns"]


def test_text_is_shown_as_text() -> None:
    lines = drawn(pa.table({"t": ["\x1b[31mred\x07 [bold]x[/bold]\r\n:smile:"]}), 80)
    assert r"\x1b[31mred\x07 [bold]x[/bold]\r\n:smile:" in lines[2]
    assert "\x1b" not in "".join(lines)


def test_null_is_not_an_empty_text() -> None:
    lines = drawn(pa.table({"t": ["", None]}), 80)
    assert lines[2].strip() == ""
    assert lines[3].strip() == "NULL"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3000"),
        (0.25, "0.25"),
        (1e-9, "1e-09"),
        (123456.789, "123456.7890"),
        (float("nan"), "nan"),
        (True, "true"),
        ([("positive", 0.98765), ("negative", 0.01235)], "{positive: 0.9877, negative: 0.0123}"),
        ([0.5] * 384, "[0.5, 0.5, 0.5, 0.5, … 384 values]"),
        ({"a": None}, "{a: NULL}"),
        (b"\x00\xff", r"\x00ff"),
        ([], "[]"),
        (
            [{"token": "boring", "weight": 3.1}, {"token": "fine", "weight": -0.25}],
            "boring +3.10, fine -0.25",
        ),
    ],
)
def test_values_are_short(value: object, text: str) -> None:
    assert render.cell_text(value) == text


def test_fit_cuts_wide_columns_before_it_leaves_any_out() -> None:
    assert render.fit([5, 500, 5], 80) == ([0, 1, 2], [5, 60, 5])
    shown, widths = render.fit([20] * 30, 80)
    assert shown[0] == 0
    assert shown[-1] == 29
    assert sum(widths) + 3 * len(widths) + 1 + 4 <= 80


def test_an_error_has_its_line_and_a_caret() -> None:
    out = io.StringIO()
    error = SyntaxProblem("Expected AS.", hint="Write AS SELECT …").at("BUILD MODEL m\nUSING x [/y]", 22)
    render.show_error(error, Console(file=out, width=40))
    lines = out.getvalue().splitlines()
    assert lines[0] == "error[syntax]: Expected AS. Write AS SELECT …"
    assert lines[1] == "line 2: USING x [/y]"
    assert lines[2].index("^") == lines[1].index("[/y]")


def test_progress_without_a_terminal_is_a_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(render.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    progress = render.RichProgress(render.console_for(out))
    with progress.task("train", 600) as task:
        for step in range(60):
            clock[0] += 1
            task.advance(10, loss=1 / (step + 1))
    lines = out.getvalue().splitlines()
    assert lines[0] == "  train: 150/600 rows, loss 0.06667, 10.0 rows/s, 45 s left"
    assert lines[-1] == "  train: 600 rows, loss 0.01667, 10.0 rows/s, 1 min 00 s"
    assert len(lines) == 4  # every 15 s, and the closing one
    assert "\x1b" not in out.getvalue()


def test_progress_on_a_terminal_cleans_up_after_itself() -> None:
    out = io.StringIO()
    progress = render.RichProgress(Console(file=out, force_terminal=True, width=100))
    with progress.task("outer", 2) as outer:
        with progress.task("inner [1/2]", None, "files") as inner:
            inner.advance(3)
        outer.advance(2)
    assert "outer" in out.getvalue()
    assert "inner [1/2]" in out.getvalue()
    assert (
        out.getvalue().rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in out.getvalue()
    )  # the cursor is back

    with pytest.raises(KeyboardInterrupt), progress.task("stopped", 2):
        raise KeyboardInterrupt
    # The cursor that was hidden is back, after an interrupt too.
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h")


def test_a_warning_is_shown_once() -> None:
    out = io.StringIO()
    progress = render.RichProgress(render.console_for(out))
    progress.warning("3 texts were cut.")
    progress.warning("3 texts were cut.")
    assert out.getvalue() == "  warning: 3 texts were cut.\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text
