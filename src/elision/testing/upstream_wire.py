"""What a scripted upstream says, as OpenAI's objects and vLLM's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from elision.contract import joined
from elision.testing.upstream_dialects import Dialect
from elision.testing.upstream_speech import Ask, Said, Speech, Token

Route: TypeAlias = Literal["chat", "text", "generate"]


class Writer:
    """Writes one reply. Lives for one request.

    Args:
        route: Which of the three forms.
        dialect: Whose.
        ask: What was asked.
        speech: What is said.
        model: The model's name.
    """

    def __init__(
        self, route: Route, dialect: Dialect, ask: Ask, speech: Speech, *, model: str
    ) -> None:
        self._route = route
        self._dialect = dialect
        self._ask = ask
        self._speech = speech
        self._model = model
        self._n_written = 0
        self._opened: set[int] = set()
        self._offsets: dict[int, int] = {}
        self._ids = dialect.ids and bool(ask.body.get("return_token_ids"))
        self._named = dialect.ids and bool(ask.body.get("return_tokens_as_token_ids"))

    def chunks(self, said: Said) -> list[dict[str, Any]]:
        """Return the chunks of one step; a choice's first one opens with its role."""
        self._n_written += len(said.tokens) or bool(said.delta)
        choice = self._choice(said)
        if self._route == "generate":
            return [{"request_id": "scripted", "choices": [choice]}]
        chunks = []
        if said.choice not in self._opened:
            self._opened.add(said.choice)
            chunks += self._opening(said.choice)
        return [*chunks, self._object([choice])]

    def last(self) -> dict[str, Any]:
        """Return the chunk with the usage."""
        return self._object([]) | {"usage": self.usage()}

    def whole(self, said: Iterable[Said]) -> dict[str, Any]:
        """Return the reply as one object."""
        choices: dict[int, dict[str, Any]] = {}
        for one in said:
            self._n_written += len(one.tokens) or bool(one.delta)
            piece = self._choice(one)
            choices[one.choice] = joined(choices.get(one.choice, {}), piece)
        kept = [self._closed(choice) for _, choice in sorted(choices.items())]
        if self._route == "generate":
            return {"request_id": "scripted", "choices": kept}
        body = self._object(kept) | {"usage": self.usage()}
        body["object"] = "chat.completion" if self._route == "chat" else "text_completion"
        return body | ({"prompt_token_ids": self._speech.prompt_ids} if self._ids else {})

    def usage(self) -> dict[str, Any]:
        """Return what was counted so far."""
        n_prompt, n_written = self._speech.n_prompt, self._n_written
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_written,
            "total_tokens": n_prompt + n_written,
        }

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._route == "chat" else "text_completion"
        head = {"id": "scripted", "object": kind, "created": 1, "model": self._model}
        return head | {"choices": choices}

    def _opening(self, choice: int) -> list[dict[str, Any]]:
        if self._route != "chat":
            return []
        delta = {"role": "assistant", "content": ""}
        ids = {"prompt_token_ids": self._speech.prompt_ids} if self._ids else {}
        return [self._object([{"index": choice, "delta": delta, "finish_reason": None}]) | ids]

    def _choice(self, said: Said) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": said.choice, "finish_reason": said.finish}
        if said.stop_reason is not None:
            choice["stop_reason"] = said.stop_reason
        if self._route == "chat":
            choice["delta"] = dict(said.delta)
        elif self._route == "text":
            choice["text"] = said.delta.get("content") or ""
        if self._ids or self._route == "generate":
            choice["token_ids"] = [token.id for token in said.tokens]
        if self._ask.n_top is not None:
            choice["logprobs"] = self._logprobs(said) if said.tokens else None
        return choice

    def _closed(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return a choice put together: a message, calls without their index."""
        if self._route != "chat":
            return choice
        message = {"role": "assistant", "content": None} | choice.pop("delta")
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{k: v for k, v in c.items() if k != "index"} for c in calls]
        return choice | {"message": message}

    def _logprobs(self, said: Said) -> dict[str, Any]:
        if self._route == "text":
            return self._text_logprobs(said.choice, said.tokens)
        token = self._id_entry if self._route == "generate" else self._entry
        return {"content": [token(one) | {"top_logprobs": [*map(token, one.top)]}
                            for one in said.tokens]}  # fmt: skip

    def _entry(self, token: Token) -> dict[str, Any]:
        name = self._name(token)
        data = token.data if self._dialect.true_bytes else name.encode()
        return {"token": name, "logprob": _finite(token.logprob), "bytes": list(data)}

    def _id_entry(self, token: Token) -> dict[str, Any]:
        return {"token_id": token.id, "logprob": _finite(token.logprob), "rank": token.rank}

    def _text_logprobs(self, choice: int, tokens: Sequence[Token]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(choice, 0))
            self._offsets[choice] = offsets[-1] + len(token.text)
        return {
            "tokens": [self._name(token) for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [self._ranking(token) for token in tokens],
            "text_offset": offsets,
        }

    def _ranking(self, token: Token) -> Mapping[str, float]:
        return {self._name(other): _finite(other.logprob) for other in (*token.top, token)}

    def _name(self, token: Token) -> str:
        return f"token_id:{token.id}" if self._named else token.text


def _finite(logprob: float) -> float:
    """Return a log-probability as vLLM writes it: JSON has no minus infinity."""
    return max(logprob, -9999.0)
