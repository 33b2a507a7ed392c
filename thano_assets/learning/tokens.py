"""A tokenizer read straight from ``tokenizer.json``, without Transformers, where both are sure to agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

# Transformers builds the tokenizers of these classes from its own defaults and tokenizer_config.json and
# takes little more than the vocabulary from tokenizer.json.
_BUILT_ANEW = frozenset({"BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "ElectraTokenizerFast"})
_AS_WRITTEN = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})
_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")
_ONE_TEXT = [
    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
]


class FastTokenizer:
    """As much of a Transformers tokenizer as prediction needs.

    Attributes:
        model_max_length: the most tokens of a text; a huge number where there is no limit.
        pad_token_id: the padding token's id, if there is such a token.
    """

    def __init__(self, tokenizer: Tokenizer, model_max_length: int, pad_token: str | None) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.backend_tokenizer = tokenizer
        self.model_max_length = model_max_length
        self.pad_token_id: int | None = None if pad_token is None else tokenizer.token_to_id(pad_token)

    def __call__(self, texts: str | Sequence[str], **_: Any) -> dict[str, Any]:
        """``input_ids`` of one text or of several, and ``special_tokens_mask`` of one; nothing is cut."""
        if isinstance(texts, str):
            found = self.backend_tokenizer.encode(texts)
            return {"input_ids": found.ids, "special_tokens_mask": found.special_tokens_mask}
        return {"input_ids": [one.ids for one in self.backend_tokenizer.encode_batch_fast(list(texts))]}


def load_tokenizer(model_dir: Path) -> Any:
    """The tokenizer of a Hugging Face folder: a :class:`FastTokenizer`, or Transformers' own in any doubt.

    Raises:
        OSError, ValueError: the folder holds no tokenizer.
    """
    found = read_tokenizer(model_dir)
    if found is not None:
        return found
    from transformers import AutoTokenizer  # not its models

    from .transformers_logging import quiet_transformers

    with quiet_transformers():
        return AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)


def read_tokenizer(model_dir: Path) -> FastTokenizer | None:
    """The tokenizer as ``tokenizer.json`` says; ``None`` where Transformers might read it in another way."""
    try:
        written = (model_dir / "tokenizer.json").read_text(encoding="utf-8")
        layout = json.loads(written)
        settings = _settings(model_dir)
    except (OSError, ValueError):
        return None
    kind = settings.get("tokenizer_class") or "BertTokenizer"
    special = {
        one["content"]
        for one in layout.get("added_tokens", [])
        if one.get("special") and not one["normalized"]
    }
    named = {name: _content(settings.get(name)) for name in _SPECIAL}
    if any(token not in special for token in named.values() if token is not None):
        return None  # Transformers would add it
    further = settings.get("additional_special_tokens") or settings.get("extra_special_tokens")
    if (
        further
        or settings.get("auto_map")
        or settings.get("added_tokens_decoder", {}).keys()
        - {str(one["id"]) for one in layout.get("added_tokens", [])}
    ):
        return None
    if kind in _BUILT_ANEW:
        if not _is_bert(layout, settings, named):
            return None
    elif kind not in _AS_WRITTEN:
        return None
    longest = settings.get("model_max_length")
    limit = int(longest) if isinstance(longest, (int, float)) and longest < 1e18 else int(1e30)
    pad = named["pad_token"] or ("[PAD]" if kind in _BUILT_ANEW else None)
    return FastTokenizer(Tokenizer.from_str(written), limit, pad)


def _is_bert(layout: dict[str, Any], settings: dict[str, Any], named: dict[str, str | None]) -> bool:
    """Whether ``tokenizer.json`` says what Transformers' BertTokenizer makes of the settings."""
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        "strip_accents": settings.get("strip_accents"),
        "lowercase": settings.get("do_lower_case", True),
    }
    model = layout.get("model") or {}
    after = layout.get("post_processor") or {}
    ids = {name: one.get("ids") for name, one in (after.get("special_tokens") or {}).items()}
    vocabulary = model.get("vocab") or {}
    standard = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]"}
    tokens = {one["content"] for one in layout.get("added_tokens", [])}
    return (
        all(named[f"{name}_token"] in (None, token) for name, token in standard.items())
        and set(standard.values()) <= tokens <= {*standard.values(), "[MASK]"}
        and layout.get("normalizer") == normalizer
        and layout.get("pre_tokenizer") == {"type": "BertPreTokenizer"}
        and model.get("type") == "WordPiece"
        and model.get("unk_token") == "[UNK]"
        and model.get("continuing_subword_prefix") == "##"
        and model.get("max_input_chars_per_word") == 100
        and after.get("type") == "TemplateProcessing"
        and after.get("single") == _ONE_TEXT
        and ids == {token: [vocabulary.get(token)] for token in ("[CLS]", "[SEP]")}
    )


def _settings(model_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = model_dir / name
        if path.is_file():
            found |= json.loads(path.read_text(encoding="utf-8"))
    if (model_dir / "added_tokens.json").is_file():
        found["auto_map"] = "added_tokens.json"  # an old way of adding tokens
    return found


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token
