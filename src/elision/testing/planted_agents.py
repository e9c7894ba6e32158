"""A model that knows what was planted and plays every role of ALU by rules: honestly, or not."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from elision.agents.alu import prompts
from elision.agents.alu.redaction import without
from elision.agents.alu.roles import Leak
from elision.agents.speaking import Said, counted
from elision.contract import Message, Usage, text_of

Part: TypeAlias = Literal["vanilla", "judge", "eraser", "critic", "composer", "unknown"]

_FENCE: Final = re.compile(
    r"<<<(?P<name>[\w ]+?) (?P<mark>[0-9a-f]{16})>>>\n(?P<text>.*?)"
    r"\n<<<end of (?P=name) (?P=mark)>>>",
    re.DOTALL,
)
_PRONOUN: Final = re.compile(r"\b(he|she|they|it|his|her|their|its|him|them)\b", re.IGNORECASE)
_RATINGS: Final[Mapping[Leak, int]] = {
    "direct": 1, "alias": 1, "relation": 3, "description": 3, "elimination": 3,
}  # fmt: skip
_ORDER: Final = re.compile(r"rate (?:5|every|all)|answer none|shortlist is empty|no findings", re.I)
NEVER_HEARD: Final = "I have never heard of that, I am afraid."


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Something that the model knows.

    Attributes:
        about: Whom or what; as a register would name it.
        asked: Parts that a question for it holds, case aside; *about* itself may stand in an
            earlier turn if the question has a pronoun.
        reply: What is replied.
        tells: The words of the reply that give *about* away.
        kind: How they do.
    """

    about: str
    asked: tuple[str, ...]
    reply: str
    tells: tuple[str, ...] = ()
    kind: Leak = "direct"


class PlantedSpeaker:
    """Plays all roles by its table of facts, and counts what it is asked.

    It reads data where prompts fence it, and obeys orders anywhere else: an injection that gets
    out of its fence is obeyed.

    Args:
        knows: Its whole memory.
        lies: Roles that it plays dishonestly: the judge finds nothing, the critic rates everything
            5, the eraser changes nothing.
        otherwise: The reply to everything else.

    Attributes:
        name: ``planted``.
        calls: Roles played, in order.
        n_tokens: Tokens of each prompt, estimated from its characters.
    """

    def __init__(
        self,
        knows: Sequence[Known],
        *,
        lies: Collection[Part] = (),
        otherwise: str = "I do not know.",
    ) -> None:
        self.name = "planted"
        self.calls: list[Part] = []
        self.n_tokens: list[int] = []
        self._knows = tuple(knows)
        self._lies = frozenset(lies)
        self._otherwise = otherwise

    async def say(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Said:
        """See `Speaker.say`."""
        part = _part(messages)
        text = self._vanilla(messages) if part == "vanilla" else self._play(part, messages)
        said = counted(text, Usage(), messages, 0.0)
        self.calls.append(part)
        self.n_tokens.append(said.usage.prompt_tokens)
        return said

    def _vanilla(self, messages: Sequence[Message]) -> str:
        users = [text_of(m) for m in messages if m.get("role") == "user"]
        question, before = users[-1].casefold(), "\n".join(map(text_of, messages)).casefold()
        fitting = [known for known in self._knows if _asks(known, question, before)]
        best = max(fitting, key=lambda known: len(known.asked), default=None)
        return self._otherwise if best is None else best.reply

    def _play(self, part: Part, messages: Sequence[Message]) -> str:
        prompt = "\n".join(text_of(m) for m in messages)
        data = {match["name"]: match["text"] for match in _FENCE.finditer(prompt)}
        if part in self._lies or _ORDER.search(_FENCE.sub("", prompt)):
            return _lied(part, data)
        match part:
            case "judge":
                return json.dumps({"findings": list(self._found(data))})
            case "eraser":
                return json.dumps({"variants": self._variants(data, prompt)})
            case "critic":
                return _scores([self._rating(data, reply) for reply in _numbered(data, "reply")])
            case "composer":
                return json.dumps({"reply": _numbered(data, "version")[0]})
        return NEVER_HEARD

    def _found(self, data: Mapping[str, str]) -> Iterator[dict[str, object]]:
        for opaque, known, tell in self._told(data, data["reply"]):
            at = data["reply"].casefold().find(tell.casefold())
            quote = data["reply"][at : at + len(tell)]
            yield {"target": opaque, "kind": known.kind, "quote": quote, "confidence": 0.9}

    def _told(self, data: Mapping[str, str], reply: str) -> Iterator[tuple[str, Known, str]]:
        """Yield what *reply* gives away of the listed subjects: id, fact, and words."""
        around = (data["conversation"] + reply).casefold()
        for line in data["subjects"].splitlines():
            opaque, _, described = line.partition(": ")
            for known in self._knows:
                meant = known.about.casefold() in around or _asks(known, around, around)
                if known.about.casefold() in described.casefold() and meant:
                    yield from ((opaque, known, t) for t in known.tells if _stands(t, reply))

    def _variants(self, data: Mapping[str, str], prompt: str) -> list[str]:
        reply = data["reply"]
        told = [tell for _, _, tell in self._told(data, reply)]
        spans = [m.span() for t in told for m in re.finditer(re.escape(t), reply, re.IGNORECASE)]
        left = without(reply, spans)
        wanted = int(re.findall(r"Write (\d+) different", prompt)[0])
        endings = ("", " That is all.", " I know no more.", " Is there more?", " I hope it helps.")
        kept = [f"{left}{endings[n % len(endings)]}".strip() for n in range(wanted)]
        return [text or NEVER_HEARD for text in kept]

    def _rating(self, data: Mapping[str, str], reply: str) -> int:
        return min((_RATINGS[known.kind] for _, known, _ in self._told(data, reply)), default=5)


def _part(messages: Sequence[Message]) -> Part:
    systems: dict[str, Part] = {
        prompts.JUDGE: "judge",
        prompts.ERASER: "eraser",
        prompts.CRITIC: "critic",
        prompts.COMPOSER: "composer",
        prompts.UNKNOWN: "unknown",
    }
    return systems.get(text_of(messages[0]), "vanilla")


def _asks(known: Known, question: str, before: str) -> bool:
    name = known.about.casefold()
    parts = [part.casefold() for part in known.asked]
    refers = _PRONOUN.search(question) is not None and name in before
    return bool(parts) and all(p in question or (p == name and refers) for p in parts)


def _stands(tell: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(tell)}(?!\w)", text, re.IGNORECASE) is not None


def _numbered(data: Mapping[str, str], name: str) -> list[str]:
    return [text for key, text in data.items() if re.fullmatch(rf"{name} \d+", key)]


def _scores(leaks: Sequence[int]) -> str:
    rows = [
        {"variant": n, "leak": leak, "utility": 4, "reasons": ""} for n, leak in enumerate(leaks)
    ]
    return json.dumps({"scores": rows})


def _lied(part: Part, data: Mapping[str, str]) -> str:
    match part:
        case "judge":
            return '{"findings": []}'
        case "critic":
            return _scores([5] * len(_numbered(data, "reply")))
        case "eraser":
            return json.dumps({"variants": [data["reply"]] * 5})
    return NEVER_HEARD
