"""The gate of guard-paper: a small network on the model's own hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from elision.contract import Request
from elision.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

WIDTH: Final = 256
DROPOUT: Final = 0.1
RATE: Final = 1e-3
EPOCHS: Final = 50
BATCH: Final = 32


class Rendered(Protocol):
    """A prompt as tokens."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens."""
        ...


class HiddenModel(Protocol):
    """What the gate asks of a model; the local engine's `CausalModel` is one.

    Attributes:
        name: For errors.
        model: The transformers model.
        tokenizer: Its tokenizer.
    """

    name: str
    model: Any
    tokenizer: Any

    def render(self, request: Request) -> Rendered:
        """Return *request*'s prompt as tokens."""
        ...


def mean_hidden(model: HiddenModel, ids: Sequence[int]) -> Tensor:
    r"""Return the mean penultimate hidden state over a prompt, shape ``(D,)``, float32.

    Computes :math:`z = \sum_j m_j h_j^{(l)} / \sum_j m_j` without padding, so every :math:`m_j`
    is 1, with *l* the layer before the last.

    Raises:
        CapabilityError: If the model hands out no hidden states.

    Source:
        GUARD, arXiv:2505.13312, Eq. 3; which layer: guard.md 1.1.
    """
    import torch

    with torch.inference_mode():
        out = model.model(
            input_ids=torch.tensor([[*ids]], device=model.model.device),
            output_hidden_states=True,
            use_cache=False,
        )
        states = getattr(out, "hidden_states", None)
        if states is None:
            raise CapabilityError("guard-paper", engine=model.name, missing="HIDDEN")
        return cast("Tensor", states[-2][0].float().mean(dim=0).cpu().clone())


def question_features(model: HiddenModel, questions: Sequence[str]) -> Tensor:
    """Return `mean_hidden` of each question as the model will read it, shape ``(N, D)``."""
    import torch

    chat = bool(getattr(model.tokenizer, "chat_template", None))
    requests = (
        Request(messages=({"role": "user", "content": text},))
        if chat
        else Request(kind="text", prompt=text)
        for text in questions
    )
    return torch.stack([mean_hidden(model, model.render(request).ids) for request in requests])


@dataclass(frozen=True, slots=True)
class MlpGate:
    """Tells prompts about a forget set from others. Immutable once it is fitted.

    Attributes:
        network: Linear(D, 256), ReLU, dropout .1, Linear(256, 256), ReLU, dropout .1,
            Linear(256, 2), in evaluation mode.
    """

    network: Any

    @classmethod
    def fit(
        cls, positives: Tensor, negatives: Tensor, *, seed: int = 0, epochs: int = EPOCHS
    ) -> MlpGate:
        """Fit a gate: cross entropy with inverse-frequency weights, Adam, batches of 32.

        The same features and seed give the same gate; torch's own random state is left alone.

        Args:
            positives: Features of prompts about the forget set, shape ``(N, D)``, N at least 1.
            negatives: Of others, likewise.
            seed: Of the weights, the order and the dropout.
            epochs: Passes over the data.

        Raises:
            ConfigError: If either set is empty.

        Source:
            Sizes and rates: guard.md 1.2; the optimiser is ours, none is told.
        """
        import torch
        from torch import nn

        if not len(positives) or not len(negatives):
            raise ConfigError("a gate needs prompts about the forget set, and others")
        features = torch.cat([positives, negatives]).float().clone()
        labels = torch.tensor([1] * len(positives) + [0] * len(negatives))
        weights = len(labels) / torch.tensor([len(negatives), len(positives)]).float()
        with torch.inference_mode(mode=False), torch.enable_grad(), torch.random.fork_rng([]):
            torch.manual_seed(seed)
            network = _network(features.shape[1])
            adam = torch.optim.Adam(network.parameters(), lr=RATE)
            loss = nn.CrossEntropyLoss(weight=weights)
            for _ in range(epochs):
                for batch in cast("Any", torch.randperm(len(labels))).split(BATCH):
                    adam.zero_grad()
                    loss(network(features[batch]), labels[batch]).backward()
                    adam.step()
        return cls(network.eval().requires_grad_(False))

    def probability(self, feature: Tensor) -> float:
        """Return the probability that a prompt of this feature, shape ``(D,)``, is about the set.

        Raises:
            ConfigError: If the gate was fitted on features of another width.
        """
        import torch

        width = self.network[0].in_features
        if feature.shape[-1] != width:
            raise ConfigError(
                f"the gate was fitted on {width} hidden values, this model has "
                f"{feature.shape[-1]}; fit it on this model"
            )
        with torch.inference_mode():
            return float(self.network(feature.float().cpu()).softmax(dim=-1)[1])


def _network(width: int) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Linear(width, WIDTH),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(WIDTH, 2),
    )


@lru_cache(maxsize=1)
def general_questions() -> tuple[str, ...]:
    """Return questions about anything: what a gate must not open for (see the file's head)."""
    text = files("elision.guards.baselines").joinpath("general_questions.txt").read_text("utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))
