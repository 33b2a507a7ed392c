"""The walls of the house: who may import whom, no circles, and what is imported late."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from thano_assets.resources.environments import open_workspace

ROOT = Path(__file__).parents[1]
PACKAGE = "thano_assets"

#: Libraries that are imported in functions, because not every command needs them and each takes its time.
HEAVY = frozenset(
    """
    IPython accelerate chardet dagster dagster_webserver duckdb fastapi filelock flask huggingface_hub ipywidgets
    lightgbm matplotlib mlflow numpy optuna pandas psutil pyarrow python_calamine rich safetensors scipy skops
    sklearn sqlalchemy sqlglot tokenizers torch transformers uvicorn xlsxwriter yaml
    """.split()  # noqa: SIM905 - a list of words
)
#: Modules whose functions import all that they need: each serves many commands, of which one runs.
ENTRANCES = frozenset(
    f"{PACKAGE}{name}"
    for name in ("", ".interfaces.cli", ".interfaces.command_group", ".interfaces.notebook")
)
#: Is copied beside a model and has to stand alone there.
STANDS_ALONE = f"{PACKAGE}.learning.served_text"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in (ROOT / PACKAGE).rglob("*.py")}


@cache
def imports(module: str) -> tuple[tuple[str, int, bool], ...]:
    """What a module imports, on which line, and whether in a function; imports for types are left out."""
    path = MODULES[module]
    return tuple(_imports(ast.parse(path.read_text("utf-8")), module, path.name == "__init__.py", False))


def _imports(tree: ast.AST, module: str, package: bool, late: bool) -> Iterator[tuple[str, int, bool]]:
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno, late) for alias in names)
            case ast.ImportFrom(names=names, level=level, module=target):
                base = module.split(".") if package else module.split(".")[:-1]
                before = base[: len(base) - level + 1] if level else []
                source = ".".join([*before, *([target] if target else [])])
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    yield inner if inner in MODULES else source, node.lineno, late
            case ast.If(test=test) if "TYPE_CHECKING" in ast.dump(test):
                continue
            case _:
                function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from _imports(node, module, package, late or function)


@cache
def loads(module: str) -> frozenset[str]:
    """The heavy libraries that come with importing ``module``."""
    waiting, seen, found = [module], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            waiting += [target for target, _, late in imports(name) if not late]
            waiting += [".".join(name.split(".")[:count]) for count in range(1, name.count(".") + 1)]
        elif name.split(".")[0] in HEAVY:
            found.add(name.split(".")[0])
    return frozenset(found)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The modules that a query needs, from the start of a process on."""
    script = (
        "import sys; from thano_assets.session import Session; from pathlib import Path\n"
        "with Session(Path(sys.argv[1])) as session: session.execute('SELECT 1')\n"
        "print(*sys.modules)"
    )
    workspace = open_workspace(tmp_path_factory.mktemp("started") / "workspace").root
    done = subprocess.run([sys.executable, "-c", script, str(workspace)], stdout=subprocess.PIPE, check=True)
    return frozenset(done.stdout.decode().split())


def test_each_package_imports_from_those_below_it_alone() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_no_modules_import_each_other_in_a_circle() -> None:
    from graphlib import TopologicalSorter

    TopologicalSorter(
        {module: {target for target, _, _ in imports(module) if target in MODULES} for module in MODULES}
    ).prepare()


def test_imports_in_functions_defer_a_heavy_library_or_the_start(started: frozenset[str]) -> None:
    idle = []
    for module in MODULES.keys() - ENTRANCES - {STANDS_ALONE}:
        for target, line, late in imports(module):
            if not late:
                continue
            if target in MODULES:
                deferred = loads(target) - loads(module) or (module in started and target not in started)
            else:
                deferred = target.split(".")[0] in HEAVY
            if not deferred:
                idle.append(f"{module}:{line} imports {target}")
    assert "\n".join(sorted(idle)) == ""


def test_a_query_loads_no_library_that_it_does_not_need(started: frozenset[str]) -> None:
    assert {name for name in started if name in HEAVY} <= {"duckdb", "filelock", "numpy", "pandas", "pyarrow"}


@pytest.mark.parametrize(
    "document",
    [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_documents_name_files_that_are_there(document: Path) -> None:
    text = document.read_text("utf-8")
    names = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    if document.name == "architecture.md":
        names += re.findall(r"`((?:\w+/)+)`", text)
    there = [f"/{path.relative_to(ROOT / PACKAGE)}" for path in (ROOT / PACKAGE).rglob("*")]
    missing = [
        name
        for name in names
        if not (ROOT / name).exists() and not any(path.endswith(f"/{name.rstrip('/')}") for path in there)
    ]
    assert set(missing) <= {"code/thano_text_model.py"}  # lies beside a model


def test_each_defence_stands_where_the_tool_that_takes_it_away_looks() -> None:
    spec = importlib.util.spec_from_file_location("check_defences", ROOT / "tools" / "check_defences.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool  # dataclasses look there
    spec.loader.exec_module(tool)
    gone = [
        one.name for one in tool.DEFENCES if one.old not in (ROOT / PACKAGE / one.file).read_text("utf-8")
    ]
    assert gone == []
