"""What the scripted upstream says, and what a client sends to hear it."""

from __future__ import annotations

import re

import orjson

MODEL = "scripted"

_WORDS = (
    " the", " boat", " left", " at", " dawn", " and", " came", " back", " before", " noon", ",",
    " loaded", " with", " salt", " fish", ".",
)  # fmt: skip
_CONTENT = re.compile(rb'"content":\s*"([^"]*)"')


def words(n: int) -> list[str]:
    """Return the *n* pieces of a reply."""
    return [_WORDS[i % len(_WORDS)] for i in range(n)]


def events(n: int) -> list[bytes]:
    """Return the events of a reply of *n* pieces, each as OpenAI writes it; the end is the last."""
    head = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    opening = {"role": "assistant", "content": "", "refusal": None}
    deltas = [opening, *({"content": word} for word in words(n)), {}]
    found = []
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        if not delta:
            choice["finish_reason"] = "stop"
        found.append(b"data: " + orjson.dumps(head | {"choices": [choice]}) + b"\n\n")
    return [*found, b"data: [DONE]\n\n"]


def body(model: str) -> bytes:
    """Return the body that asks *model* for a streamed reply."""
    said = [
        {"role": "system", "content": "You tell what happened at the harbour, in short words."},
        {"role": "user", "content": "When did the boat leave, and what did it bring back?"},
    ]
    return orjson.dumps({"model": model, "messages": said, "stream": True, "max_tokens": 4096})


def says(page: bytes, n: int) -> bool:
    """Whether a stream holds the whole reply of *n* pieces, in whatever pieces, and its end."""
    text = b"".join(_CONTENT.findall(page))
    return b"data: [DONE]" in page and text == "".join(words(n)).encode()
