"""What BUILD MODEL learns: labels, or the language of texts, which makes a base model."""

from __future__ import annotations

from thano_assets.errors import InvalidOption
from thano_assets.sql.options import OPTION_SPECS, GivenOption, Options

#: The objective that makes a base model (Clark et al. 2020, ELECTRA).
REPLACED_TOKEN_DETECTION = "replaced_token_detection"
#: Where the options of a BUILD MODEL with that objective are specified.
BASE_KIND = "BUILD BASE MODEL"

_NO_LABELS = "learns from texts without labels"
_NO_RIVAL = "measures itself on texts that it holds out, and its newest version answers"
_WHY = {
    "label_col": _NO_LABELS,
    "class_weight": _NO_LABELS,
    "promote_if": _NO_RIVAL,
    "evaluate_on": _NO_RIVAL,
    "strict": _NO_RIVAL,
}


def by_objective(options: Options, source: str) -> Options:
    """The options as their objective specifies them; those of other statements as they are.

    Args:
        options: as they were given.
        source: the text that their places count in.

    Raises:
        InvalidOption: an option that the objective has no use for, or FIT MODEL with it.
    """
    if options.get("objective") != REPLACED_TOKEN_DETECTION:
        return options
    place = options.value_span("objective")
    if options.kind != "BUILD MODEL":
        raise InvalidOption(
            f"{options.kind} goes on with a classifier, and objective='{REPLACED_TOKEN_DETECTION}' makes a "
            "base model.",
            hint="BUILD MODEL name USING a base model goes on with that one's pre-training.",
        ).at(source, place.start, len(place))
    specs = OPTION_SPECS[BASE_KIND]
    given = {}
    for name, value in options.items():
        key, where = options.place(name), options.value_span(name)
        if name not in specs:
            why = _WHY.get(name, "trains no classifier")
            raise InvalidOption(
                f"Option {name} is for classifiers; objective='{REPLACED_TOKEN_DETECTION}' {why}.",
                hint=f"Leave it out. With this objective there are: {', '.join(sorted(specs))}.",
            ).at(source, key.start, len(key))
        given[name] = GivenOption(value, options.given(name), key, where)
    return Options(BASE_KIND, given)
