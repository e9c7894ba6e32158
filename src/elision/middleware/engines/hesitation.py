"""How hesitant a model is along a text of many kinds: what a share of positions is told by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

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


def entropies_along(model: Any, ids: Sequence[int]) -> Tensor:
    """Return the entropy of *model*'s scores behind each of *ids*, in nats, rising; float32."""
    import torch

    with torch.inference_mode():
        out = model(input_ids=torch.tensor([[*ids]], device=model.device), use_cache=False)
        nats: Tensor = torch.special.entr(out.logits[0].float().softmax(-1)).sum(-1)
    return nats.sort().values


def exceeded(entropies: Tensor, share: float) -> float:
    """Return the entropy, in nats, that *share* of *entropies* exceed."""
    return float(entropies.quantile(1 - share))
