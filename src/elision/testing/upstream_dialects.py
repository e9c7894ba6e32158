"""How the servers that speak OpenAI's wire differ: what they honour, ignore and refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from elision.errors import RequestError
from elision.testing.upstream_speech import Ask

_KNOWN: Final = frozenset(
    "model messages prompt stream stream_options n stop max_tokens max_completion_tokens "
    "temperature top_p seed frequency_penalty presence_penalty logit_bias logprobs top_logprobs "
    "tools tool_choice parallel_tool_calls functions function_call response_format user metadata "
    "store reasoning_effort service_tier modalities audio prediction echo suffix best_of".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What a kind of server honours; whatever is false or nought here it does not know.

    Attributes:
        name: What it is called.
        owner: ``owned_by`` in its list of models.
        known: Fields it takes; an empty set takes and ignores every other one.
        n_top: Most alternatives per token of a chat.
        n_top_text: Most alternatives per token of a completion.
        bias: ``logit_bias``.
        ids: ``return_token_ids`` and ``return_tokens_as_token_ids``.
        prompt_ids: Token ids as the prompt of a completion.
        continues: ``continue_final_message``.
        bad_words: ``bad_words``.
        generate: ``/inference/v1/generate``, ``/version`` and ``/tokenize``.
        raw: Whether log-probabilities are the model's own, before the bias.
        true_bytes: Whether ``bytes`` are those of the token, not those of its readable text.
        ends_told: Whether the end token counts and is told.
    """

    name: str
    owner: str = "system"
    known: frozenset[str] = frozenset()
    n_top: int = 20
    n_top_text: int = 5
    bias: bool = True
    ids: bool = False
    prompt_ids: bool = True
    continues: bool = False
    bad_words: bool = False
    generate: bool = False
    raw: bool = False
    true_bytes: bool = True
    ends_told: bool = False

    def ask(self, body: Mapping[str, Any], *, chat: bool) -> Ask:
        """Return what of *body* is honoured.

        Raises:
            RequestError: For what such a server refuses.
        """
        self._check(body, chat=chat)
        bias = body.get("logit_bias") or {}
        stop = body.get("stop") or ()
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        return Ask(
            body=body,
            chat=chat,
            continues=self.continues and chat and bool(body.get("continue_final_message")),
            n=body.get("n") or 1,
            max_tokens=limit if limit is not None or chat else 16,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            temperature=1.0 if body.get("temperature") is None else body["temperature"],
            seed=body.get("seed") or 0,
            bias={int(token): value for token, value in bias.items()} if self.bias else {},
            bad_words=tuple(body.get("bad_words") or ()) if self.bad_words else (),
            n_top=self._n_top(body, chat=chat),
            raw=self.raw,
            ends_told=self.ends_told,
            stop_ids=tuple(body.get("stop_token_ids") or ()) if self.ids else (),
        )

    def _check(self, body: Mapping[str, Any], *, chat: bool) -> None:
        unknown = set(body) - self.known
        if self.known and unknown:
            raise RequestError("unrecognised request argument", param=min(unknown))
        if (body.get("logit_bias") or None) and self.known and not self.bias:
            raise RequestError("logit_bias is not supported", param="logit_bias")
        if isinstance(body.get("prompt"), list) and not self.prompt_ids:
            raise RequestError("the prompt must be text", param="prompt")
        most = self.n_top if chat else self.n_top_text
        if most and (self._wanted(body, chat=chat) or 0) > most:
            raise RequestError("too many alternatives", param="top_logprobs")

    def _wanted(self, body: Mapping[str, Any], *, chat: bool) -> int | None:
        if not chat:
            wanted: int | None = body.get("logprobs")
            return wanted
        return (body.get("top_logprobs") or 0) if body.get("logprobs") else None

    def _n_top(self, body: Mapping[str, Any], *, chat: bool) -> int | None:
        return self._wanted(body, chat=chat) if self.n_top else None


DIALECTS: Final[Mapping[str, Dialect]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Dialect(name="openai", known=_KNOWN),
            Dialect(
                name="vllm", owner="vllm", n_top_text=20, ids=True, continues=True, bad_words=True,
                generate=True, raw=True, true_bytes=False, ends_told=True,
            ),
            Dialect(name="llama.cpp", owner="llamacpp", n_top=100, n_top_text=100, raw=True),
            Dialect(name="strict", known=_KNOWN - {"seed"}, n_top=5, bias=False, prompt_ids=False),
            Dialect(name="bare", n_top=0, n_top_text=0, bias=False, prompt_ids=False),
        )
    }
)  # fmt: skip
"""By name. ``strict`` refuses every field it does not know, ``bare`` ignores all but text."""
