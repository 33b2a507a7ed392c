"""The report of ``thano doctor``, as lines or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from thano_assets.commands.doctor import Check, examine, is_sound
from thano_assets.interfaces.render import console_for, count

if TYPE_CHECKING:
    from rich.console import Console


def report(workspace: str | None, format_: str) -> bool:
    """Print the report as ``'table'`` or ``'json'``; returns whether statements can run."""
    console = console_for(sys.stdout)
    if format_ == "json":
        checks = list(examine(workspace))
        found = {"sound": is_sound(checks), "checks": [asdict(check) for check in checks]}
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return is_sound(checks)
    status = console_for(sys.stderr)
    with status.status("Looking at this machine…"):
        checks = list(examine(workspace))
    _show(checks, console)
    return is_sound(checks)


def _show(checks: list[Check], console: Console) -> None:
    """One line a check, its advice below it, and a closing sentence."""
    from rich.text import Text

    marks = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "bold red")}
    column = max(len(check.name) for check in checks) + 2
    for check in checks:
        mark, style = marks[check.state]
        line = Text.assemble((f"{mark:<9}", style), (f"{check.name:<{column}}", "bold"), check.found)
        console.print(line, soft_wrap=True)
        if check.advice:
            console.print(Text(" " * (9 + column) + "→ " + check.advice, style="dim"), soft_wrap=True)
    problems = sum(check.state == "problem" for check in checks)
    if problems:
        words = Text(f"\n{count(problems, 'problem')}: see the advice above.", style="bold red")
    else:
        words = Text("\nEverything needed is there.", style="bold green")
    console.print(words)
