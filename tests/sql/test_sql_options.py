"""OPTIONS: one table says what every statement accepts."""

from __future__ import annotations

from typing import Any

import pytest

from thano_assets.errors import InvalidOption, UnknownOption
from thano_assets.sql import OPTION_SPECS, Options, OptionSpec, parse
from thano_assets.sql.grammar import STATEMENT_SPECS
from thano_assets.sql.options import default, find_spec

SPECS = [(kind, spec) for kind, specs in OPTION_SPECS.items() for spec in specs.values()]
IDS = [f"{kind}-{spec.name}" for kind, spec in SPECS]

# Of every type: values that are wrong whatever the bounds.
WRONG: dict[str, list[Any]] = {
    "text": [1, True, [], "", "  "],
    "column": [1, True, [], "", "  "],
    "columns": ["a", 1, True, [], [1], ["a", " "]],
    "integer": ["1", True, 1.5, [1], float("inf")],
    "number": ["1", True, [1], float("nan"), float("inf")],
    "boolean": ["True", 1, 0, [True]],
    "choice": ["no such choice", 1, True, ["fail"]],
    "integers": [1, "1, 2", [1.5, 2], [True, 2]],
    "mark": [1, True, "", "too long", "\n", [","]],
    "texts": [1, True, [], [1]],
    "types": [1, "VARCHAR", {}, [], {"a": 1}, {"a": "NOTYPE"}, {"a": "BIGINT) FROM x"}, ["a", "A"], [1]],
    "encoding": [1, True, "", "no such", "base64"],
    "cron": [
        1,
        True,
        "",
        "soon",
        "@reboot",
        "* * * *",
        "0 0 * * * *",
        "60 * * * *",
        "0 0 30 2 *",
        "*/0 * * * *",
    ],
}


@pytest.mark.parametrize(("kind", "spec"), SPECS, ids=IDS)
def test_specification(kind: str, spec: OptionSpec) -> None:
    assert kind in STATEMENT_SPECS
    assert spec.doc.endswith(".")
    assert spec.check(spec.default, kind) == spec.default
    assert bool(spec.choices) == (spec.type == "choice")
    for name in (spec.name, *spec.aliases):
        assert find_spec(kind, name.upper()) is spec
    for value in WRONG[spec.type]:
        with pytest.raises(InvalidOption, match=spec.name) as caught:
            spec.check(value, kind)
        assert caught.value.hint is not None
        assert spec.allowed in caught.value.hint
    if spec.nullable:
        assert spec.check(None, kind) is None
    elif spec.default is not None:
        with pytest.raises(InvalidOption):
            spec.check(None, kind)


@pytest.mark.parametrize("kind", OPTION_SPECS)
def test_no_two_options_of_a_statement_share_a_name(kind: str) -> None:
    names = [name for spec in OPTION_SPECS[kind].values() for name in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("COPY", "if_exists", "fail"),
        ("BUILD MODEL", "text_col", "text"),
        ("BUILD MODEL", "label_col", "label"),
        ("BUILD MODEL", "max_epochs", 3),
        ("BUILD MODEL", "batch_size", 16),
        ("BUILD MODEL", "eval_fraction", 0.1),
        ("BUILD MODEL", "seed", 42),
        ("BUILD MODEL", "overwrite", False),
        ("BUILD MODEL", "baseline", True),
        ("BUILD MODEL", "train", "full"),
        ("BUILD MODEL", "learning_rate", None),
        ("PREDICT", "result_col", "predicted"),
        ("PREDICT", "label_col", None),
        ("PREDICT", "proba", True),
        ("PREDICT", "on_error", "abort"),
        ("EVALUATE", "report", "summary"),
        ("CONVERT", "result_col", "convert_result"),
        ("SEARCH TEXT", "result_col", "search_result"),
        ("SEARCH TEXT", "top_k", 1000),
        ("SEARCH KEYWORD", "ngram_range", (1, 2)),
        ("SEARCH KEYWORD", "top_n", 5),
        ("SEARCH KEYWORD", "diversity", 0.5),
        ("GET THANOSQL DATASET", "size", "tutorial"),
        ("UPLOAD MODEL", "framework", "pytorch"),
    ],
)
def test_defaults(kind: str, name: str, value: object) -> None:
    assert default(kind, name) == value
    assert Options(kind).value(name) == value


def test_fit_takes_what_build_takes() -> None:
    assert OPTION_SPECS["FIT MODEL"] == OPTION_SPECS["BUILD MODEL"]


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("epochs = 2", "max_epochs", 2),
        ("EPOCHS=2", "max_epochs", 2),
        ('"epochs" = 2', "max_epochs", 2),
        ("target='y'", "label_col", "y"),
        ('label_col="two words"', "label_col", "two words"),
        ("label_col=y", "label_col", "y"),
        ("label_col='it''s'", "label_col", "it's"),
        ("learning_rate=1e-4", "learning_rate", 1e-4),
        ("learning_rate=.001", "learning_rate", 0.001),
        ("learning_rate=1", "learning_rate", 1.0),
        ("learning_rate=+5E-5", "learning_rate", 5e-5),
        ("learning_rate=None", "learning_rate", None),
        ("learning_rate=null", "learning_rate", None),
        ("overwrite=true", "overwrite", True),
        ("overwrite=FALSE", "overwrite", False),
        ("batch_size=1_000", "batch_size", 1000),
        ("train='HEAD'", "train", "head"),
        ("class_weight=balanced", "class_weight", "balanced"),
        ("eval_fraction=0", "eval_fraction", 0.0),
    ],
)
def test_values(written: str, name: str, value: object) -> None:
    for comma in ("", ","):
        (statement,) = parse(f"BUILD MODEL m USING b OPTIONS ({written}{comma}) AS FROM t")
        assert dict(statement.options) == {name: value}
        assert type(statement.options[name]) is type(value)


def test_options_as_a_mapping() -> None:
    options = Options.of("BUILD MODEL", epochs=1, tune=3)
    assert dict(options) == {"max_epochs": 1, "tune": 3}
    assert options.get("seed") is None
    assert options.value("seed") == 42
    assert options.given("max_epochs") == "epochs"
    assert options.unavailable() == []
    assert options.filled()["batch_size"] == 16
    assert options == Options.of("BUILD MODEL", tune=3, max_epochs=1)
    assert hash(options) == hash(Options.of("BUILD MODEL", tune=3, max_epochs=1))
    assert options != Options.of("FIT MODEL", tune=3, max_epochs=1)
    with pytest.raises(KeyError):
        options.value("no_such_option")
    with pytest.raises(UnknownOption, match=r"LIST has no option x\. LIST takes no options"):
        Options.of("LIST", x=1)


def test_empty_options() -> None:
    (statement,) = parse("PREDICT USING m OPTIONS () AS FROM t")
    assert dict(statement.options) == {}
