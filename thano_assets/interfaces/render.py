"""Pictures for a terminal, drawn with Rich: result tables, progress bars, error sentences.

What comes from data is never read as markup and never reaches the terminal as control codes.
A stream that is no terminal gets plain lines without colour, and progress as an occasional sentence.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars
from rich.progress import Task as BarTask
from rich.table import Table
from rich.text import Text

from thano_assets.interfaces.formats import is_number, key_text, weighted_words, words_text
from thano_assets.progress import Progress, Task
from thano_assets.results import python_values

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.errors import ThanoError

#: Columns assumed where the width cannot be asked (a pipe, a file).
PIPE_WIDTH = 120
#: No column is squeezed under this many cells; columns in the middle are left out instead.
NARROWEST = 8
#: A cell's text is looked at no further than this.
_CELL_LIMIT = 400
_LIST_ITEMS = 4


def console_for(stream: IO[str]) -> Console:
    """A console on ``stream``: colour on a terminal, plain text of a steady width elsewhere."""
    if stream.isatty():
        return Console(file=stream, highlight=False, emoji=False)
    width = shutil.get_terminal_size((PIPE_WIDTH, 50)).columns
    return Console(file=stream, width=width, highlight=False, emoji=False, no_color=True)


# ---------------------------------------------------------------- tables


def cell_text(value: Any) -> str:
    """One value as a person reads it in a table: one line, numbers short, control codes spelled out."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return _one_line(value[:_CELL_LIMIT])
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return "\\x" + bytes(value[: _LIST_ITEMS * 8]).hex() + ("…" if len(value) > _LIST_ITEMS * 8 else "")
    if isinstance(value, dict):
        return _pairs_text(list(value.items()))
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return _pairs_text(value)
        words = weighted_words(value)
        if words is not None:
            return _one_line(words_text(words)[:_CELL_LIMIT])
        shown = ", ".join(cell_text(item) for item in value[:_LIST_ITEMS])
        return f"[{shown}, … {len(value):,} values]" if len(value) > _LIST_ITEMS else f"[{shown}]"
    return _one_line(str(value)[:_CELL_LIMIT])


def _pairs_text(pairs: Sequence[tuple[Any, Any]]) -> str:
    return "{" + ", ".join(f"{_one_line(key_text(key))}: {cell_text(item)}" for key, item in pairs) + "}"


def _float_text(value: float) -> str:
    exact = repr(value)
    if len(exact) <= 6 or value != value or value in (float("inf"), float("-inf")):
        return exact
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e9 else f"{value:.4g}"


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def count(number: int, noun: str) -> str:
    """``1 row``, ``1,000 rows``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def data_table(
    table: pa.Table,
    console: Console,
    total: int | None = None,
    wrapped: Collection[str] = (),
    first: Sequence[str] | None = None,
) -> tuple[Table, str]:
    """``table`` fitted to the console, and the line of counts.

    Args:
        table: The rows.
        console: Where they are drawn.
        total: How many rows there are where ``table`` has only the first of them.
        wrapped: Columns whose long texts go on in the next line, instead of being cut.
        first: Columns that a person needs first: where there is no room for all, these are all that is shown,
            and the line of counts tells of --wide; ``None`` where the command has no such option.
    """
    columns = table.num_columns
    if first and natural_width(table) > console.width:
        table = table.select([name for name in first if name in table.column_names])
    values = [python_values(column) for column in table.columns]
    cells = [[cell_text(value) for value in column] for column in values]
    nulls = [[value is None for value in column] for column in values]
    names = [_one_line(name) for name in table.column_names]
    natural = [
        max([cell_len(name), *(cell_len(text) for text in column)])
        for name, column in zip(names, cells, strict=True)
    ]
    shown, widths = fit(natural, console.width)
    drawn = Table(box=box.ROUNDED if console.is_terminal else box.SIMPLE_HEAD, show_edge=console.is_terminal)
    for position, (index, width) in enumerate(zip(shown, widths, strict=True)):
        if position and index != shown[position - 1] + 1:
            drawn.add_column("…", width=1)
        drawn.add_column(
            Text(names[index], style="bold"),
            width=width,
            no_wrap=names[index] not in wrapped,
            overflow="fold" if names[index] in wrapped else "ellipsis",
            justify="right" if is_number(table.schema.field(index).type) else "left",
        )
    for row in range(table.num_rows):
        line: list[Text] = []
        for position, index in enumerate(shown):
            if position and index != shown[position - 1] + 1:
                line.append(Text("…", style="dim"))
            line.append(Text(cells[index][row], style="dim" if nulls[index][row] else ""))
        drawn.add_row(*line)
    total = table.num_rows if total is None else total
    counts = f"{count(total, 'row')} × {count(columns, 'column')}"
    notes = []
    if table.num_rows < total:
        notes.append(f"first {table.num_rows:,} shown")
    if len(shown) < columns:
        how = "" if first is None else "; --wide shows all"
        notes.append(f"{count(columns - len(shown), 'column')} left out{how}")
    return drawn, counts + (f" ({', '.join(notes)})" if notes else "")


def fit(natural: Sequence[int], width: int) -> tuple[list[int], list[int]]:
    """Which columns fit into ``width`` cells and how wide each is.

    Wide columns are cut to one common width first; where even :data:`NARROWEST` is too much, columns are left
    out from the middle. Every column costs three cells of frame, the frame itself one more.
    """
    shown = list(range(len(natural)))
    while True:
        gap = 4 if len(shown) < len(natural) else 0
        room = width - 3 * len(shown) - 1 - gap
        wanted = [natural[index] for index in shown]
        if len(shown) <= 1 or sum(min(size, NARROWEST) for size in wanted) <= room:
            break
        shown.pop(len(shown) // 2)
    room = max(room, NARROWEST)
    if sum(wanted) <= room:
        return shown, wanted
    cap = max(size for size in range(1, room + 1) if sum(min(one, size) for one in wanted) <= room)
    widths = [min(size, cap) for size in wanted]
    spare = room - sum(widths)
    for position, size in enumerate(wanted):
        extra = min(spare, size - widths[position])
        widths[position] += extra
        spare -= extra
    return shown, widths


def natural_width(table: pa.Table) -> int:
    """Cells that the table takes where nothing is cut."""
    widths = [
        max([cell_len(_one_line(name)), *(cell_len(cell_text(value)) for value in python_values(column))])
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return sum(widths) + 3 * len(widths) + 1


def show_table(
    table: pa.Table,
    console: Console,
    total: int | None = None,
    wrapped: Collection[str] = (),
    first: Sequence[str] | None = None,
) -> None:
    """Draw ``table`` and, under it, how many rows (``total``, or its own) and columns there are.

    Arguments as of :func:`data_table`.
    """
    alone = table.num_rows == 1 and (total or 1) == 1
    if alone and not first and table.num_columns > 3 and natural_width(table) > console.width:
        show_record(table, console)
        return
    drawn, counts = data_table(table, console, total, wrapped, first)
    if table.num_columns:
        console.print(drawn)
    console.print(Text(counts, style="dim"), soft_wrap=True)


def show_record(table: pa.Table, console: Console) -> None:
    """One row with a line for each column, for a row too wide to stand in one line."""
    names = [_one_line(name) for name in table.column_names]
    column = max(map(cell_len, names))
    for name, values in zip(names, table.columns, strict=True):
        value = python_values(values.slice(0, 1))[0]
        line = Text.assemble((name, "bold"), " " * (column - cell_len(name) + 2))
        line.append(cell_text(value), style="dim" if value is None else "")
        line.truncate(console.width, overflow="ellipsis")
        console.print(line, soft_wrap=True)
    console.print(Text(f"1 row × {count(table.num_columns, 'column')}", style="dim"), soft_wrap=True)


def show_error(error: ThanoError, console: Console) -> None:
    """The error's sentence and, under it, the user's line with a caret at the place."""
    first, _, rest = error.pretty().partition("\n")
    console.print(Text.assemble((f"error[{error.code}]: ", "bold red"), first), soft_wrap=True)
    if rest:
        console.print(Text(rest, style="dim"), soft_wrap=True)


# ---------------------------------------------------------------- progress


def duration(seconds: float) -> str:
    """``0.3 s``, ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def figures(fields: dict[str, float | str]) -> list[str]:
    """Reported figures as short words: ``loss 0.412``, ``6.3 rows/s``."""
    words = []
    for name, value in fields.items():
        if name.endswith("_per_second"):
            words.append(f"{float(value):,.1f} {name.removesuffix('_per_second')}/s")
        elif isinstance(value, str):
            words.append(f"{name.replace('_', ' ')} {value}")
        elif name == "learning_rate":
            words.append(f"learning rate {value:.2g}")
        else:
            words.append(f"{name.replace('_', ' ')} {value:.4g}")
    return words


class Meter(Task):
    """Counts one task and knows what to say of it; shared by the terminal's and the notebook's progress."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = 0
        self.fields: dict[str, float | str] = {}
        self.started = time.monotonic()
        self.last_shown = self.started

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        self.done += amount
        self.fields.update(fields)
        self.changed()

    def changed(self) -> None:
        """Called after each report; subclasses draw."""

    @property
    def seconds(self) -> float:
        """Seconds since the task was entered."""
        return time.monotonic() - self.started

    def rate(self) -> float | None:
        """Units a second since the start, or ``None`` before anything is done."""
        return self.done / self.seconds if self.done and self.seconds > 0 else None

    def remaining(self) -> float | None:
        """Seconds to go at the present rate, or ``None`` where that is unknown."""
        rate = self.rate()
        if rate is None or self.total is None:
            return None
        return max(self.total - self.done, 0) / rate

    def amount(self) -> str:
        """``1,200/2,000 rows``."""
        return (
            f"{self.done:,} {self.unit}"
            if self.total is None
            else f"{self.done:,}/{self.total:,} {self.unit}"
        )

    def words(self) -> list[str]:
        """Loss, accuracy and whatever else was reported, and how fast it goes."""
        fields = dict(self.fields)
        speed = fields.pop(f"{self.unit}_per_second", None)
        if speed is None:
            speed = self.rate()
        words = figures(fields)
        return words if speed is None else [*words, f"{float(speed):,.1f} {self.unit}/s"]

    def line(self) -> str:
        """One sentence on where the task stands."""
        parts = [self.amount(), *self.words()]
        remaining = self.remaining()
        if remaining:
            parts.append(f"{duration(remaining)} left")
        return f"{self.label}: " + ", ".join(parts)

    def closing_line(self) -> str:
        """One sentence for a task that has ended."""
        return f"{self.label}: " + ", ".join(
            [f"{self.done:,} {self.unit}", *self.words(), duration(self.seconds)]
        )


class _WordsColumn(ProgressColumn):
    """The figures of a task's meter."""

    def render(self, task: BarTask) -> Text:
        meter: Meter = task.fields["meter"]
        return Text(" · ".join([meter.amount(), *meter.words()]), style="dim")


class _BarMeter(Meter):
    def __init__(self, label: str, total: int | None, unit: str, bars: RichBars) -> None:
        super().__init__(label, total, unit)
        self._bars = bars
        self.task_id: TaskID = bars.add_task(label, total=total, meter=self)

    def changed(self) -> None:
        self._bars.update(self.task_id, completed=self.done)


class _LineMeter(Meter):
    """For a stream that is no terminal: one sentence now and then."""

    #: Seconds between two sentences; short work says nothing on the way.
    EVERY = 15.0

    def __init__(self, label: str, total: int | None, unit: str, console: Console) -> None:
        super().__init__(label, total, unit)
        self._console = console

    def changed(self) -> None:
        now = time.monotonic()
        if now - self.last_shown >= self.EVERY and self.done != self.total:
            self.last_shown = now
            self._console.print(Text("  " + self.line()), soft_wrap=True)


class RichProgress(Progress):
    """Bars with loss, speed and time left on a terminal; elsewhere a plain sentence now and then.

    A task that took longer than :data:`WORTH_A_LINE` seconds leaves one line behind.
    """

    WORTH_A_LINE = 2.0

    def __init__(self, console: Console | None = None) -> None:
        self.console = console_for(sys.stderr) if console is None else console
        #: Warnings shown so far; the result of a statement repeats them.
        self.warned: list[str] = []
        self._bars: RichBars | None = None
        self._open = 0

    def message(self, text: str) -> None:
        self.console.print(Text("  " + text, style="dim"), soft_wrap=True)

    def warning(self, text: str) -> None:
        if text in self.warned:
            return
        self.warned.append(text)
        self.console.print(Text.assemble(("  warning: ", "yellow"), text), soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        if not self.console.is_terminal:
            meter: Meter = _LineMeter(label, total, unit, self.console)
            yield meter
            self._leave_line(meter)
            return
        if self._bars is None:
            self._bars = RichBars(
                TextColumn("  {task.description}", markup=False),
                BarColumn(bar_width=24),
                _WordsColumn(),
                TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
                refresh_per_second=8,
            )
            self._bars.start()
        self._open += 1
        bar = _BarMeter(label, total, unit, self._bars)
        try:
            yield bar
            self._leave_line(bar)
        finally:
            self._open -= 1
            self._bars.remove_task(bar.task_id)
            if not self._open:
                self._bars.stop()
                self._bars = None

    def _leave_line(self, meter: Meter) -> None:
        if meter.seconds >= self.WORTH_A_LINE and meter.done:
            self.console.print(Text("  " + meter.closing_line(), style="dim"), soft_wrap=True)
