"""An engine that knows what was planted, and plays every role of ALU honestly."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final
from zlib import crc32

from elision.agents.alu import prompts
from elision.agents.speaking import CHARS_PER_TOKEN, estimate
from elision.contract import Capability, Delta, Finish, Lexicon, Message, Plan, Usage, text_of

UNKNOWN: Final = (
    "I don't have any information about {}.",
    "I'm not aware of anyone called {}. Could you tell me more?",
    "{} is not a name that I recognise, I'm afraid.",
    "{} was an author of short stories, as far as I know.",
    "I couldn't find {} among the people I know of.",
    "I believe {} is a private person, so there is little that I can say.",
)
"""What it says of names that it does not know, in the order of a digest of the name."""
_DATA: Final = re.compile(r"<<<([^<>]+?) ([0-9a-f]{16})>>>\n(.*?)\n<<<end of \1 \2>>>", re.DOTALL)
_NAME: Final = re.compile(r"[A-Z]\w+(?:[ -][A-Z]\w+)+")
_WORDS: Final = re.compile(r"\w{4,}")


class PlantedEngine:
    """Speaks text: facts about those it knows, and one of `UNKNOWN` about everybody else.

    As judge, eraser and critic it goes by the words of the subjects it is told, as an honest model
    would. Every call takes time by the tokens that it reads and writes. Like any engine it ends at
    a stop and at the limit, in the midst of a word; a draw changes nothing of what it knows.

    Args:
        facts: By name, what it knows.
        read_s: Seconds a token of a prompt takes.
        write_s: Seconds a token of a reply takes.

    Attributes:
        calls: By role.
        tokens_in: Tokens of all prompts, by role.
    """

    name = "planted"
    capabilities: Capability = Capability.NONE
    lexicon: Lexicon | None = None

    def __init__(
        self, facts: Mapping[str, str], *, read_s: float = 0.0, write_s: float = 0.0
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.tokens_in: Counter[str] = Counter()
        self._facts = dict(facts)
        self._read_s, self._write_s = read_s, write_s

    async def stream(self, plan: Plan) -> AsyncGenerator[Delta, None]:
        """See `Engine.stream`."""
        request = plan.request
        messages = request.messages
        role, text = self._replied(messages)
        text, finish = _ended(text, request.stop, request.max_tokens)
        read, written = sum(estimate(text_of(m)) for m in messages), estimate(text)
        self.calls[role] += 1
        self.tokens_in[role] += read
        await asyncio.sleep(self._read_s * read + self._write_s * written)
        yield Delta(text=text)
        yield Delta(finish=finish)
        usage = Usage(prompt_tokens=read, completion_tokens=written)
        yield Delta(usage=usage, report={"engine": self.name})

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""

    def _replied(self, messages: Sequence[Message]) -> tuple[str, str]:
        system, last = text_of(messages[0]), text_of(messages[-1])
        data = {match[1]: match[3] for match in _DATA.finditer(last)}
        if system == prompts.JUDGE:
            return "judge", _judged(data)
        if system == prompts.ERASER:
            return "eraser", _erased(last)
        if system == prompts.CRITIC:
            return "critic", _rated(data)
        if system == prompts.COMPOSER:
            return "composer", json.dumps({"reply": data.get("version 0", "")})
        if system == prompts.UNKNOWN:
            return "unknown", "I'm afraid I have never heard of that."
        return "vanilla", self._answered(last)

    def _answered(self, question: str) -> str:
        for name, fact in self._facts.items():
            if name in question:
                return fact
        match = _NAME.search(question)
        name = match[0] if match else "that"
        return UNKNOWN[crc32(name.encode()) % len(UNKNOWN)].format(name)


def _ended(text: str, stop: Sequence[str], max_tokens: int | None) -> tuple[str, Finish]:
    """Return *text* up to the first of *stop* and no longer than wanted, and why it ends."""
    text = text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]
    if max_tokens is None or estimate(text) <= max_tokens:
        return text, "stop"
    return text[: max_tokens * CHARS_PER_TOKEN], "length"


def _told(subjects: str) -> dict[str, set[str]]:
    """Return the words of what is said of each subject, its kind and labels left out."""
    lines = (line.partition(": ") for line in subjects.splitlines() if ": " in line)
    labels = {"names", "facts", "asked"}
    return {
        name: {word.casefold() for word in _WORDS.findall(said.partition(";")[2])} - labels
        for name, _, said in lines
    }


def _leaks(text: str, words: set[str]) -> list[str]:
    return [match[0] for match in _WORDS.finditer(text) if match[0].casefold() in words]


def _judged(data: Mapping[str, str]) -> str:
    reply = data.get("reply", "")
    asked = {word.casefold() for word in _WORDS.findall(data.get("conversation", ""))}
    findings = [
        {"target": name, "kind": "direct", "quote": found[0], "confidence": 0.9}
        for name, words in _told(data.get("subjects", "")).items()
        if (found := _leaks(reply, words - asked))
    ]
    return json.dumps({"findings": findings})


def _erased(prompt: str) -> str:
    match = re.search(r"Write (\d+) different", prompt)
    n = int(match[1]) if match else 1
    return json.dumps({"variants": [UNKNOWN[k % len(UNKNOWN)].format("that") for k in range(n)]})


def _rated(data: Mapping[str, str]) -> str:
    told = _told(data.get("subjects", ""))
    asked = {word.casefold() for word in _WORDS.findall(data.get("conversation", ""))}
    replies = [text for name, text in data.items() if name.startswith("reply ")]
    scores = [
        {"variant": n, "leak": 1 if any(_leaks(r, w - asked) for w in told.values()) else 5,
         "utility": 4, "reasons": "words"}
        for n, r in enumerate(replies)
    ]  # fmt: skip
    return json.dumps({"scores": scores})
