"""The condition of ``promote_if``: what it means, and where it says what is wrong."""

from __future__ import annotations

import pytest

from thano_assets.errors import InvalidOption
from thano_assets.sql import parse
from thano_assets.sql.promotion import condition_of, read_condition

CHAMPION = {"accuracy": 0.8, "f1_macro": 0.75, "loss": 0.5, "roc_auc": float("nan")}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("f1_macro >= champion", "f1_macro >= champion"),
        ("  F1_MACRO>=CHAMPION ", "f1_macro >= champion"),
        ("accuracy > champion + 0.01", "accuracy > champion + 0.01"),
        ("accuracy>champion-.5", "accuracy > champion - 0.5"),
        ("log_loss <= champion", "loss <= champion"),
        ("loss < 1e-2 AND accuracy = 1", "loss < 0.01 AND accuracy = 1"),
        ("roc_auc >= 0.9 and recall_macro >= champion and precision_macro >= 0.5", None),
        ("loss >= -1", "loss >= -1"),
    ],
)
def test_what_is_read(text: str, canonical: str | None) -> None:
    condition = read_condition(text)
    if canonical is not None:
        assert str(condition) == canonical
    assert read_condition(str(condition)) == condition


@pytest.mark.parametrize(
    ("condition", "challenger", "promoted"),
    [
        ("f1_macro >= champion", {"f1_macro": 0.75}, True),
        ("f1_macro > champion", {"f1_macro": 0.75}, False),
        ("f1_macro >= champion", {"f1_macro": 0.7499}, False),
        ("f1_macro >= champion - 0.01", {"f1_macro": 0.74}, True),
        ("accuracy >= champion + 0.1", {"accuracy": 0.9}, True),  # 0.8 + 0.1 is not 0.9 to a computer
        ("accuracy >= champion + 0.1", {"accuracy": 0.8999}, False),
        ("loss < champion", {"loss": 0.4}, True),
        ("loss < champion", {"loss": 0.5}, False),
        ("loss = champion", {"loss": 0.5}, True),
        ("accuracy = 0.5", {"accuracy": 0.6}, False),
        ("accuracy >= 0.9 AND loss <= champion", {"accuracy": 0.95, "loss": 0.6}, False),
        ("accuracy >= 0.9 AND loss <= champion", {"accuracy": 0.95, "loss": 0.5}, True),
        ("roc_auc >= champion", {"roc_auc": 0.9}, False),
        ("roc_auc >= 0.5", {"roc_auc": float("nan")}, False),
    ],
)
def test_what_passes(condition: str, challenger: dict[str, float], promoted: bool) -> None:
    assert (not read_condition(condition).failed(challenger, CHAMPION)) is promoted


def test_the_first_version_passes_the_champions_terms_and_not_the_numbers() -> None:
    condition = read_condition("f1_macro >= champion AND accuracy >= 0.9")
    assert not condition.failed({"f1_macro": 0.1, "accuracy": 0.9}, None)
    (failed,) = condition.failed({"f1_macro": 0.1, "accuracy": 0.8}, None)
    assert failed.metric == "accuracy"


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        (
            "f1_makro >= champion",
            "promote_if names f1_makro, which is not a metric. Did you mean f1_macro",
            "f1_makro",
        ),
        ("f1_macro champion", "promote_if expects one of >= > <= < = here, not champion.", "champion"),
        ("f1_macro >= best", "promote_if expects champion or a number here, not best.", "best"),
        ("f1_macro >=", "promote_if ends where champion or a number was expected.", "="),
        ("f1_macro >= champion +", "promote_if ends where a number was expected.", "+"),
        ("f1_macro >= champion accuracy > 1", "promote_if expects AND or the end here", "accuracy"),
        ("f1_macro >= champion OR accuracy > 1", "promote_if joins comparisons by AND only.", "OR"),
        ("f1_macro >= champion AND", "promote_if ends where a metric was expected.", "D"),
        ("0.9 <= accuracy", "promote_if expects a metric here, not 0.9.", "0.9"),
        ("accuracy ~ 1", "promote_if cannot hold ~.", "~"),
        ("accuracy >= 0.9; DROP TABLE t", "promote_if cannot hold ;.", ";"),
    ],
)
def test_what_is_wrong_is_marked_inside_the_option(text: str, message: str, marked: str) -> None:
    statement = (
        f"BUILD MODEL m USING ElectraEn\nOPTIONS (epochs=1,\n  promote_if='{text}') AS SELECT * FROM t"
    )
    with pytest.raises(InvalidOption) as caught:
        parse(statement)
    error = caught.value
    assert str(error).startswith(message)
    assert (error.line, error.column) == (3, 15 + text.rindex(marked))
    assert statement.split("\n")[2][error.column - 1 :][: error.length] == marked


def test_quotes_in_the_condition_mark_the_whole_option() -> None:
    with pytest.raises(InvalidOption, match="cannot hold '") as caught:
        parse("BUILD MODEL m USING ElectraEn OPTIONS (promote_if='accuracy >= ''x''') AS SELECT * FROM t")
    assert (caught.value.column, caught.value.length) == (51, 19)


def test_a_condition_needs_rows_to_judge_by() -> None:
    build = "BUILD MODEL m USING ElectraEn OPTIONS (eval_fraction=0, promote_if='loss < 1'{more}) AS SELECT * FROM t"
    with pytest.raises(InvalidOption, match=r"eval_fraction=0 holds none out. Name a table by evaluate_on"):
        parse(build.format(more=""))
    assert len(parse(build.format(more=", evaluate_on='holdout'"))) == 1


def test_what_counts_without_a_condition() -> None:
    def condition(options: str) -> str:
        (statement,) = parse(f"BUILD MODEL m USING ElectraEn OPTIONS ({options}) AS SELECT * FROM t")
        return str(condition_of(statement.options))

    assert condition("epochs=1") == "None"
    assert condition("evaluate_on='h'") == "f1_macro >= champion"
    assert condition("evaluate_on='h', promote_if='loss < 1'") == "loss < 1"
