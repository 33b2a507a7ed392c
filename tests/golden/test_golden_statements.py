"""Workspaces of before stay valid: what stands for a statement, and for its assets, is what it was."""

from __future__ import annotations

from typing import Any

import pytest

from .statements import identity, kept, texts

LINES = kept()


@pytest.mark.parametrize("line", LINES, ids=[line["text"].replace("\n", " ")[:60] for line in LINES])
def test_what_stands_for_a_statement_is_what_it_was(line: dict[str, Any]) -> None:
    assert identity(line["text"]) == line


def test_each_kind_of_statement_is_held_with_each_option() -> None:
    missing = set(texts()) - {line["text"] for line in LINES}
    assert missing == set(), "python -m tests.golden.statements adds them"
    assert not [line["text"] for line in LINES if "error" in line]
