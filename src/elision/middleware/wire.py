"""OpenAI's request bodies, read strictly into the nouns of the contract.

Every field that is ours is checked; every other one is carried in ``Request.extra``. What an engine
then does not do is refused, never ignored; see `elision.middleware.asks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from elision.contract import Message, Request, Sampling
from elision.middleware.agentic.wanted import wanted_of
from elision.middleware.fields import (
    MISSING,
    TYPE,
    Fields,
    check_number,
    check_text,
    reject,
    unsupported,
)
from elision.middleware.guidance import guidance_of
from elision.middleware.prompts import TOKEN_ID_MAX, read_messages, read_prompts

N_CHOICES = 16
N_STOPS = 16
N_ALTERNATIVES = 20
COMPLETION_TOKENS = 16
"""Tokens of a completion that names no limit, as in OpenAI's API."""

_SEEDS = (-(2**63), 2**64 - 1)  # what torch and the counter noise both take


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One request body, read.

    Attributes:
        requests: What to write: one for a chat, one per prompt for a completion.
        stream: Whether the reply leaves piece by piece.
        include_usage: Whether a streamed reply ends with its usage.
    """

    requests: tuple[Request, ...]
    stream: bool = False
    include_usage: bool = False

    @property
    def request(self) -> Request:
        """The first request."""
        return self.requests[0]

    @property
    def report(self) -> bool:
        """Whether the caller wants to be told what ran."""
        return self.request.options.get("report") is True


def parse_chat(body: object) -> Parsed:
    """Read the body of ``POST /v1/chat/completions``.

    Raises:
        RequestError: If a field is malformed or asks for what is not served; ``param`` names it.
    """
    fields = Fields(body)
    messages = read_messages(fields.need("messages"))
    stream, include_usage = _stream(fields)
    return Parsed(
        requests=(
            Request(
                kind="chat",
                messages=messages,
                continue_final=read_continues(fields, messages),
                max_tokens=_max_tokens(fields),
                logprobs=_chat_logprobs(fields),
                **_common(fields),
            ),
        ),
        stream=stream,
        include_usage=include_usage,
    )


def parse_completion(body: object) -> Parsed:
    """Read the body of ``POST /v1/completions``: one request per prompt.

    Raises:
        RequestError: As in `parse_chat`.
    """
    fields = Fields(body)
    prompts = read_prompts(fields.need("prompt"))
    if fields.take("suffix") not in (None, ""):
        raise unsupported("suffix", "filling in before a suffix is")
    stream, include_usage = _stream(fields)
    best_of = fields.integer("best_of", 1, TOKEN_ID_MAX)
    echo = fields.flag("echo")
    # Echo alone asks for nothing to be written: the prompt and its log-probabilities come back.
    max_tokens = fields.integer("max_tokens", 0 if echo else 1, TOKEN_ID_MAX)
    logprobs = fields.integer("logprobs", 0, N_ALTERNATIVES)
    common = _common(fields)
    if best_of not in (None, common["n"]):
        raise unsupported("best_of", "a best_of that differs from 'n' is")
    requests = tuple(
        Request(
            kind="text",
            prompt=prompt,
            echo=echo,
            max_tokens=COMPLETION_TOKENS if max_tokens is None else max_tokens,
            logprobs=logprobs,
            **common,
        )
        for prompt in prompts
    )
    return Parsed(requests=requests, stream=stream, include_usage=include_usage)


def _common(fields: Fields) -> dict[str, Any]:
    """Read what both bodies share; call it last, because it takes the rest as extra."""
    options = _options(fields)
    return {
        "model": _model(fields),
        "sampling": _sampling(fields, options.get("rng", "counter")),
        "stop": _stop(fields.take("stop")),
        "n": fields.integer("n", 1, N_CHOICES) or 1,
        "timeout_s": options.get("timeout_s"),
        "options": options,
        "extra": fields.rest(),
    }


def _model(fields: Fields) -> str:
    model = fields.word("model", 256)
    if model is None:
        raise reject("model", "is required", MISSING)
    return model


def _sampling(fields: Fields, rng: Literal["counter", "torch"]) -> Sampling:
    top_k = fields.integer("top_k", -1, TOKEN_ID_MAX)
    return Sampling(
        temperature=fields.number("temperature", 0, 2),
        top_p=fields.number("top_p", 0, 1, above=True),
        top_k=0 if top_k == -1 else top_k,  # vLLM's spelling of "keep all"
        min_p=fields.number("min_p", 0, 1),
        top_n_sigma=fields.number("top_n_sigma", 0, 100),
        frequency_penalty=fields.number("frequency_penalty", -2, 2) or 0.0,
        presence_penalty=fields.number("presence_penalty", -2, 2) or 0.0,
        repetition_penalty=fields.number("repetition_penalty", 0.01, 100) or 1.0,
        logit_bias=_logit_bias(fields.take("logit_bias")),
        seed=fields.integer("seed", *_SEEDS),
        rng=rng,
    )


def _logit_bias(value: object) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise reject("logit_bias", "must be an object from token ids to numbers", TYPE)
    return {_token_id(key): _bias(bias) for key, bias in value.items()}


def _token_id(key: object) -> int:
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10:
        token = int(key)
        if str(token) == key and token <= TOKEN_ID_MAX:
            return token
    raise reject("logit_bias", "must have token ids as keys, written in decimal digits")


def _bias(value: object) -> float:
    check_number(value, "logit_bias", -100, 100)
    return float(value)  # type: ignore[arg-type]


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise reject("stop", "must be a string or an array of strings", TYPE)
    if len(stops) > N_STOPS:
        raise reject("stop", f"must hold at most {N_STOPS} strings")
    for index, stop in enumerate(stops):
        param = "stop" if isinstance(value, str) else f"stop[{index}]"
        check_text(stop, param)
        if not stop:
            raise reject(param, "must not be empty")
    return tuple(stops)


def _max_tokens(fields: Fields) -> int | None:
    old = fields.integer("max_tokens", 1, TOKEN_ID_MAX)
    new = fields.integer("max_completion_tokens", 1, TOKEN_ID_MAX)
    if None not in (old, new) and old != new:
        raise reject("max_completion_tokens", "contradicts 'max_tokens'; send one of the two")
    return new if new is not None else old


def _chat_logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs")
    n_alternatives = fields.integer("top_logprobs", 0, N_ALTERNATIVES)
    if n_alternatives and not wanted:
        raise reject("top_logprobs", "needs 'logprobs' to be true")
    return (n_alternatives or 0) if wanted else None


def _stream(fields: Fields) -> tuple[bool, bool]:
    stream = fields.flag("stream")
    value = fields.take("stream_options")
    if value is None:
        return stream, False
    if not stream:
        raise reject("stream_options", "needs 'stream' to be true")
    options = Fields(value, "stream_options")
    # Taken, and only an upstream whose stream is relayed does them: pieces are not padded here
    # against whoever counts bytes on the line, and usage is known once, at the end.
    options.flag("include_obfuscation")
    options.flag("continuous_usage_stats")
    return stream, options.flag("include_usage")


def _options(fields: Fields) -> dict[str, Any]:
    """Check the ``elision`` object: a misspelt key there could mean a weaker guard."""
    value = fields.take("elision")
    if value is None:
        return {}
    ours = Fields(value, "elision")
    ours.flag("report")
    ours.flag("trace")
    ours.word("profile", 64)
    ours.word("tenant", 64)
    ours.word("session", 256)
    ours.number("timeout_s", 0, 86_400, above=True)
    if ours.take("rng") not in (None, "counter", "torch"):
        raise reject("elision.rng", "must be 'counter' or 'torch'")
    ours.flag("deterministic")
    guidance_of(ours.take("guidance"))
    wanted_of(ours.take("memory"))
    if ours.take("speculation") not in (None, "auto", "off", "force"):
        raise reject("elision.speculation", "must be 'auto', 'off' or 'force'")
    if ours.rest():
        raise reject(
            "elision",
            "may hold deterministic, guidance, memory, profile, report, rng, session, "
            "speculation, tenant, timeout_s and trace, nothing else",
        )
    return {key: item for key, item in value.items() if item is not None}


def read_continues(fields: Fields, messages: tuple[Message, ...]) -> bool:
    """Return whether the last of *messages* is an assistant's beginning, to be continued.

    Raises:
        RequestError: If it is to be, and is not; or if both that and a new message are wanted.
    """
    continues = fields.flag("continue_final_message")
    opens = fields.flag("add_generation_prompt", absent=not continues)
    if continues == opens:
        raise reject("add_generation_prompt", "must be the opposite of 'continue_final_message'")
    last = messages[-1]
    if continues and not (last["role"] == "assistant" and last.get("content")):
        raise reject("continue_final_message", "needs a last message with the assistant's text")
    return continues
