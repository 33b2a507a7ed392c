"""What the documents say is what there is: options, files, the tutorial's two forms."""

from __future__ import annotations

import re
from pathlib import Path

import click
import nbformat
import pytest

from thano_assets.interfaces.cli import cli
from thano_assets.sql import parse

ROOT = Path(__file__).parents[2]
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")


def test_every_command_has_a_section() -> None:
    sections = re.findall(r"^## thano (\w+)$", USAGE, re.MULTILINE)
    assert sections == list(cli.commands)


@pytest.mark.parametrize("name", [None, *cli.commands])
def test_every_option_is_described(name: str | None) -> None:
    command: click.Command = cli if name is None else cli.commands[name]
    text = USAGE if name is None else USAGE.partition(f"## thano {name}\n")[2].partition("\n## ")[0]
    for parameter in command.get_params(click.Context(command)):
        # What every command has is described once, at the top.
        common = {"--workspace", "--env", "--verbose", "--help"} & set(parameter.opts)
        if isinstance(parameter, click.Option) and not (name and common):
            for spelling in parameter.opts:
                assert f"`{spelling}" in text, f"{spelling} of thano {name or ''} is not in docs/usage.md"
            choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
            for choice in choices:
                assert choice in text


def test_every_command_has_an_example() -> None:
    for name, command in cli.commands.items():
        assert f"thano {name}" in (command.epilog or "")


def test_the_tutorial_is_the_same_in_both_forms() -> None:
    notebook = nbformat.read(ROOT / "tutorials" / "text_classification.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0] == "%load_ext thano_assets"
    assert cells[1].startswith("%thanosql API_TOKEN=")
    magic = "%%thanosql\n"
    assert all(cell.startswith(magic) for cell in cells[2:])
    script = (ROOT / "tutorials" / "text_classification.sql").read_text(encoding="utf-8")
    assert [statement.text for statement in parse(script)] == [cell.removeprefix(magic) for cell in cells[2:]]


@pytest.mark.parametrize("path", sorted((ROOT / "tutorials").glob("*.sql")), ids=lambda path: path.name)
def test_tutorials_parse(path: Path) -> None:
    assert parse(path.read_text(encoding="utf-8"))


def test_links_in_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_gives_the_commands_that_are_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark in ("main-command", "test-command"):
        (block,) = re.findall(rf"<!-- {mark} -->\n```sh\n(.*?)\n```\n<!-- end -->", readme, re.DOTALL)
        assert "\n" not in block
        for path in re.findall(r"\S+\.sql", block):
            assert (ROOT / path).is_file()
