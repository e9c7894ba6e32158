"""What an upstream offers beyond text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from elision.contract import Capability

VLLM = "vllm"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What an upstream was seen to do; whatever it was not seen to do is false or nought.

    Attributes:
        n_logprobs: Most alternatives per token of a chat that it told; 0: no log-probabilities.
        n_text_logprobs: Likewise of a completion.
        logit_bias: Whether a bias changes what it writes.
        token_ids: Whether it tells the ids of the tokens that it reads and writes.
        prompt_ids: Whether completions take token ids as their prompt.
        continues: Whether it continues an assistant's beginning, its turn left open.
        bad_words: Whether ``bad_words`` are known to be kept out: vLLM.
        generate: Whether vLLM's route from ids to ids, ``/inference/v1/generate``, answers.
        completions: Whether there are raw completions.
        max_model_len: Longest sequence in tokens, if it tells.
        server: ``vllm``, ``llama.cpp``, or ``unknown``.
    """

    n_logprobs: int = 0
    n_text_logprobs: int = 0
    logit_bias: bool = False
    token_ids: bool = False
    prompt_ids: bool = False
    continues: bool = False
    bad_words: bool = False
    generate: bool = False
    completions: bool = False
    max_model_len: int | None = None
    server: str = UNKNOWN

    @classmethod
    def shared(cls, several: Iterable[Offers]) -> Offers:
        """Return what all of *several* offer; nothing of none."""
        found = [*several]
        if not found:
            return cls()
        least: dict[str, Any] = {
            one.name: min(getattr(offers, one.name) for offers in found)
            for one in fields(cls)
            if one.name not in ("max_model_len", "server")
        }
        lengths = [n for offers in found if (n := offers.max_model_len) is not None]
        servers = {offers.server for offers in found}
        return cls(
            **least,
            max_model_len=min(lengths, default=None),
            server=servers.pop() if len(servers) == 1 else UNKNOWN,
        )

    @property
    def capabilities(self) -> Capability:
        """What a method may ask of such an upstream."""
        found = (
            (self.n_logprobs > 0, Capability.TOP_LOGPROBS),
            (self.logit_bias, Capability.LOGIT_BIAS),
            (self.token_ids and self.prompt_ids, Capability.TOKEN_IDS),
            (self.continues, Capability.CONTINUE),
        )
        capabilities = Capability.PASSES
        for offered, capability in found:
            capabilities |= capability if offered else Capability.NONE
        return capabilities
