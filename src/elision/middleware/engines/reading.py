"""What a recipe may have the local engine read when it opens a session; see `Reader`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from elision.contract import Request

if TYPE_CHECKING:
    from elision.middleware.engines.causal import CausalModel

SAMPLE: Final = """\
The ferry left a little after six, before the fog had lifted, and most of the passengers stayed \
below with their coffee. Marta stood at the rail. She had promised her brother that she would call \
when they reached the island, but the telephone in her coat was dead, and the steward, who might \
have lent her his, was nowhere to be seen.

To find the area of a triangle, multiply its base by its height and divide by two. For example, a \
triangle with a base of 6 cm and a height of 4 cm has an area of 6 x 4 / 2 = 12 square \
centimetres. If the base is doubled and the height stays the same, the area doubles too.

Question: Why do leaves change colour in autumn?
Answer: As the days grow shorter, trees stop making chlorophyll, the pigment that makes leaves \
green. Yellow and orange pigments that were there all along become visible, and some trees make \
red ones from the sugar that is left.

def mean(values):
    if not values:
        raise ValueError("the mean of nothing is not defined")
    return sum(values) / len(values)

The committee met on Tuesday to discuss the budget for the new library. Members agreed that the \
reading room should open first, and that the archive could wait until spring. A final decision on \
the roof was postponed; two firms have been asked for prices.

First, wash the rice until the water runs clear. Put it in a pot with one and a half times as much \
water, bring it to the boil, cover it and lower the heat. After twelve minutes turn off the heat \
and leave the lid on for another ten. Loosen the grains with a fork before serving.
"""
"""Plain prose, a sum, an answer, code, news and a recipe: written for this."""


@dataclass(frozen=True, slots=True)
class PromptReader:
    """Reads for one request.

    Attributes:
        model: Makes tokens of text.
        request: What `prompt_after` changes.
    """

    model: CausalModel
    request: Request

    def encode(self, text: str) -> tuple[int, ...]:
        """See `Reader.encode`."""
        ids = self.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(cast("list[int]", ids))

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        """See `Reader.prompt_after`."""
        return self.model.render(change(self.request)).ids

    def entropy_exceeded(self, share: float) -> float:
        """See `Reader.entropy_exceeded`; the text is `SAMPLE`, about 400 tokens of six kinds."""
        entropies = self.model.entropies
        return entropies[min(len(entropies) - 1, int((1 - share) * len(entropies)))]


def entropies_of(model: CausalModel) -> tuple[float, ...]:
    """Return the entropy, in nats, of *model*'s scores at every position of `SAMPLE`; rising."""
    import torch

    ids = model.tokenizer(SAMPLE)["input_ids"]
    ids = cast("list[int]", ids)[: model.n_context]
    with torch.inference_mode():
        out = model.model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
        logp = out.logits[0].float().log_softmax(-1)
        nats = -(logp.exp() * logp.clamp_min(-1e4)).sum(-1)
    return tuple(sorted(nats.tolist()))
