"""The model of replaced token detection: an encoder, its head over the tokens, and the generator.

Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", with one
thing different, see :mod:`.pretrain`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import ElectraConfig, ElectraModel

DISCRIMINATOR_WEIGHT = 50.0
_GENERATOR_WIDTH = 4  # the encoder's width over the generator's
#: What a forward pass tells besides its loss.
COUNTED = (
    *("generator_loss", "discriminator_loss"),
    *("masked", "filled", "tokens", "replaced", "flagged", "caught"),
)


class _Borrowed(torch.nn.Module):
    """An encoder's embeddings, read by another without gradients and without becoming part of it."""

    def __init__(self, embeddings: torch.nn.Module) -> None:
        super().__init__()
        self.__dict__["_of"] = embeddings  # past Module's registration: these parameters stay the encoder's

    def forward(self, *args: Any, **named: Any) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = self.__dict__["_of"](*args, **named)
        return found


class ReplacedTokenDetection(torch.nn.Module):
    """Encoder, its token-level head, and the generator that sets its task.

    Args:
        encoder: a Transformers encoder with ``embeddings.word_embeddings``.
        mask_id: id of [MASK].
    """

    def __init__(self, encoder: Any, mask_id: int, attention: str | None) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.mask_id = mask_id
        width = config.hidden_size
        self.head = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.GELU(), torch.nn.Linear(width, 1)
        )
        words = encoder.embeddings.word_embeddings.weight
        heads = max(1, config.num_attention_heads // _GENERATOR_WIDTH)
        narrow = max(1, width // _GENERATOR_WIDTH // heads) * heads
        smaller = ElectraConfig(
            vocab_size=words.shape[0],
            embedding_size=words.shape[1],
            hidden_size=narrow,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=heads,
            intermediate_size=max(1, config.intermediate_size // _GENERATOR_WIDTH),
            max_position_embeddings=config.max_position_embeddings,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.generator = ElectraModel._from_config(
            smaller, **({"attn_implementation": attention} if attention else {})
        )
        self.generator.embeddings = _Borrowed(encoder.embeddings)
        if not hasattr(self.generator, "embeddings_project"):
            self.generator.embeddings_project = torch.nn.Linear(words.shape[1], narrow)
        self.fill = torch.nn.Sequential(
            torch.nn.Linear(narrow, words.shape[1]), torch.nn.GELU(), torch.nn.LayerNorm(words.shape[1])
        )
        self.fill_bias = torch.nn.Parameter(torch.zeros(words.shape[0]))

    def forward(
        self,
        ids: torch.Tensor,
        present: torch.Tensor,
        chosen: torch.Tensor,
        shown: torch.Tensor,
        drawn: torch.Tensor,
        shares: tuple[float, float] = (1.0, 1.0),
    ) -> dict[str, torch.Tensor]:
        """Losses and counts of one batch, or of a part of one.

        Args:
            ids: token ids, (B, T).
            present: attention mask, (B, T).
            chosen: which tokens the generator fills in, bool (B, T).
            shown: which of those it sees unmasked, bool (B, T).
            drawn: numbers in [0, 1), (B, T): where in the generator's distribution its token is taken.
            shares: of the batch's chosen tokens, and of all its tokens, those that are here.

        Returns:
            ``loss`` (the batch's, as far as it comes from here; with gradient), and without: what
            :data:`COUNTED` names, losses as means of what is here, ``filled`` rightly, ``caught`` as both
            ``replaced`` and ``flagged``.
        """
        seen = torch.where(chosen & ~shown, self.mask_id, ids)
        hidden = self.generator(input_ids=seen, attention_mask=present).last_hidden_state
        wanted = ids[chosen]
        words = self.encoder.embeddings.word_embeddings.weight.detach()
        scores = torch.nn.functional.linear(self.fill(hidden[chosen]), words).float() + self.fill_bias
        # A part without a chosen token has no mean; a sum of nothing is 0, with a gradient of zeros.
        generator_loss = torch.nn.functional.cross_entropy(scores, wanted) if len(wanted) else scores.sum()
        with torch.no_grad():
            upto = scores.softmax(dim=-1).cumsum(dim=-1)  # a draw from the softmax by its inverse
            point = drawn[chosen][:, None] * upto[:, -1:]
            tokens = torch.searchsorted(upto, point).squeeze(1).clamp_(max=upto.shape[1] - 1)
        corrupted = ids.clone()
        corrupted[chosen] = tokens
        found = self.encoder(input_ids=corrupted, attention_mask=present).last_hidden_state
        scored = self.head(found).squeeze(-1).float()
        here = present.bool()
        replaced = corrupted != ids
        discriminator_loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scored[here], replaced[here].float()
        )
        flagged = (scored > 0) & here
        return {
            "loss": shares[0] * generator_loss + DISCRIMINATOR_WEIGHT * (shares[1] * discriminator_loss),
            "generator_loss": generator_loss.detach(),
            "discriminator_loss": discriminator_loss.detach(),
            "masked": torch.tensor(float(len(wanted))),
            "filled": (scores.detach().argmax(dim=-1) == wanted).sum(),
            "tokens": here.sum(),
            "replaced": replaced.sum(),
            "flagged": flagged.sum(),
            "caught": (flagged & replaced).sum(),
        }
