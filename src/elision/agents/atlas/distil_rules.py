"""A distiller without a model: rules that turn guidance, errors and cheap successes into drafts.

What it writes is plain and general: words of its own, a sentence of the teacher's, names of tools.
It repeats nothing that a tool said.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

from elision.agents.atlas.digest import Digest
from elision.agents.atlas.distil import MOST_DRAFTS, Deltas
from elision.agents.atlas.gates import BROAD, FEWEST, RECENT
from elision.agents.atlas.judge import ENDLESS
from elision.agents.atlas.ledger import Allowance
from elision.agents.atlas.scan import scan
from elision.agents.atlas.sensitive import MASK
from elision.agents.atlas.specific import is_of_one_case, words
from elision.agents.atlas.task import Facts
from elision.errors import ConfigError, RequestError
from elision.guards.phrases.advice import common_words
from elision.memory.learning.cues import Cue, Reading
from elision.memory.learning.cues import read as made_ready
from elision.memory.learning.entries import LONGEST, EntryDraft

REPEATED: Final = 2
"""Times that the same calls must have led to a cheap success before they are a plan."""
_MOST_PLANS: Final = 1_000
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_CLAUSE: Final = re.compile(r"\s*[;:,]\s|\s+[–—-]\s+|\s+\((?=[^)]*\))")
_TAG: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*")
_RESERVED: Final = frozenset({"and", "or", "not", "in", "true", "false"})
_SHORTEST_WORD: Final = 4
_MOST_WORDS: Final = 300
"""Distinct words of a task that are weighed, the first ones: each is sought in every recent one."""

_ERRORS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = tuple(
    (name, re.compile(code, re.IGNORECASE), order)
    for name, code, order in (
        ("no such tool", r"no such tool|unknown (?:tool|function)|tool not found",
         "Call only tools that exist; one of that name does not."),
        ("unknown column or table", r"no such (?:column|table)|unknown (?:column|table|field)"
         r"|invalid (?:column|object) name|does not exist in",
         "List the tables and columns before {tool} names one."),
        ("syntax error", r"syntax error|parse error|unexpected token|malformed|invalid syntax",
         "Write the simplest form that works for {tool}, then extend it."),
        ("wrong arguments", r"call was not made|validation|missing .{0,20}argument|field required"
         r"|invalid (?:argument|parameter|input|type)|typeerror|valueerror",
         "Check the names and types of the arguments before calling {tool}."),
        ("timeout", r"timed?[ -]?out|deadline|took too long|interrupted",
         "Narrow what {tool} is asked for before it is called again."),
        ("not allowed", r"permission|denied|forbidden|unauthori[sz]ed|not authori[sz]ed|not allowed"
         r"|read-?only|401|403",
         "Do without what {tool} refused; find another way."),
        ("too many calls", r"rate limit|too many requests|quota|429|throttl",
         "Ask {tool} for more at once, so that fewer calls are needed."),
        ("too large", r"too (?:large|long|big|many)|truncat|exceed|overflow|limit of",
         "Filter or count first, so that {tool} returns little."),
        ("not found", r"not found|no (?:rows|results?|matches|match|records?)|empty|404|nothing",
         "Check that a value occurs as written before {tool} looks for it."),
        ("cannot be done", r"can'?t|cannot|unable|impossible|closed|locked|not (?:open|available)",
         "Meet what {tool} needs before calling it."),
    )
)  # fmt: skip


_Fields: TypeAlias = dict[str, Any]
_Recent: TypeAlias = Sequence[tuple[Reading, Facts]]


class RuleDistiller:
    """Learns by rule; costs nothing, never fails.

    - A sentence of guidance becomes an entry of guidance.
    - A call that failed, and whose kind of error is known, becomes a failure mode.
    - Calls that led to a cheap success `REPEATED` times become the seed of a plan.

    Each is cued by a tag of the task, or by the word of it that says most: one that the guidance
    uses too, uncommon in English, common enough among the scope's tasks to come again, and not in
    so many of them that the gate would refuse it.

    Thread-safe; keeps counts of sequences of tool names, nothing else.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._lock = threading.Lock()

    async def distil(self, read: Digest, *, allowance: Allowance = ENDLESS) -> Deltas:
        """See `elision.agents.atlas.distil.Distiller.distil`; spends nothing. Works on a thread."""
        return await asyncio.to_thread(self.learn, read)

    def learn(self, read: Digest) -> Deltas:
        """Return what *read* teaches, the guidance first."""
        if (cue := cue_for(read)) is None:
            return Deltas()
        found = [*_guided(read), *_failures(read), *self._plans(read)]
        drafts = [draft for fields in found if (draft := _made(fields, cue)) is not None]
        return Deltas(add=tuple(drafts[:MOST_DRAFTS]), n_malformed=len(found) - len(drafts))

    def _plans(self, read: Digest) -> Iterator[_Fields]:
        tools = _sequence(read)
        if not read.efficient or read.n_attempts > 1 or len(tools) < 2:
            return
        if self._count(tools) >= REPEATED:
            yield {
                "purpose": "plan_seed",
                "imperative": f"Plan: {', then '.join(tools)}.",
                "handle": tools[0],
                "effect": "solved such tasks with few tokens",
                "body": "\n".join(tools),
            }

    def _count(self, tools: tuple[str, ...]) -> int:
        with self._lock:
            self._seen[tools] = self._seen.get(tools, 0) + 1
            self._seen.move_to_end(tools)
            while len(self._seen) > _MOST_PLANS:
                self._seen.popitem(last=False)
            return self._seen[tools]


def cue_for(read: Digest) -> Cue | None:
    """Return the cue of what *read* teaches; None if its task has no word to tell it by."""
    recent = [(made_ready(seen.text), seen.facts) for seen in read.recent[-RECENT:]]
    said = "\n".join(read.guidance).casefold()
    best = min(
        (
            (_preference(cue, said, share, by_tag), cue.pattern, cue)
            for cue, by_tag in _cues(read)
            if not _is_broad(share := _share(cue, recent), recent)
        ),
        key=lambda one: one[:2],
        default=None,
    )
    return None if best is None else best[2]


def error_of(observation: str) -> str | None:
    """Return the kind of error that *observation* tells of; None if it is not known."""
    return next((name for name, code, _ in _ERRORS if code.search(observation)), None)


def _cues(read: Digest) -> Iterator[tuple[Cue, bool]]:
    for tag in sorted(read.tags):
        if _TAG.fullmatch(tag) and tag.casefold() not in _RESERVED:
            yield Cue(type="predicate", pattern=tag), True
    found = words(read.task.replace(MASK, " "))
    telling = dict.fromkeys(word for word in found if len(word) >= _SHORTEST_WORD)
    for word in islice(telling, _MOST_WORDS):
        yield Cue(type="keyword", pattern=word), False


def _preference(
    cue: Cue, said: str, share: float, by_tag: bool
) -> tuple[bool, bool, bool, float, int]:
    """Return what orders cues, the best one smallest."""
    word = cue.pattern
    return not by_tag, word not in said, word in common_words(), -share, -len(word)


def _share(cue: Cue, recent: _Recent) -> float:
    """Return the share of the *recent* tasks that *cue* fires on; 0 without any."""
    return sum(cue.matches(text, facts) for text, facts in recent) / max(1, len(recent))


def _is_broad(share: float, recent: _Recent) -> bool:
    return len(recent) >= FEWEST and share >= BROAD


def _guided(read: Digest) -> Iterator[_Fields]:
    """Yield an entry for the first whole sentence of the last guidance that is fit to be one.

    Guidance that the write scan objects to anywhere, or that named somebody, is left alone as a
    whole: the sentence behind an injected order looks harmless by itself.
    """
    for said in reversed(read.guidance):
        if MASK in said or scan(said, tenant=""):
            continue
        for sentence in _SENTENCE.split(" ".join(said.split())):
            if (order := _fitting(sentence)) is not None:
                yield {"imperative": order, "handle": _tool_in(order, read.tools)}
                return


def _fitting(sentence: str) -> str | None:
    """Return *sentence*, or its first clauses if it is too long; None if it fits no other task."""
    most = LONGEST["imperative"]
    ends = [match.start() for match in _CLAUSE.finditer(sentence) if 20 <= match.start() <= most]
    order = sentence if len(sentence) <= most else sentence[: ends[-1]] if ends else ""
    fits = len(order.split()) >= 3 and MASK not in order and not is_of_one_case(order)
    return order if fits else None


def _tool_in(order: str, tools: Iterable[str]) -> str | None:
    """Return the only tool that *order* names."""
    named = [tool for tool in tools if re.search(rf"(?<!\w){re.escape(tool)}(?!\w)", order)]
    return named[0] if len(named) == 1 else None


def _failures(read: Digest) -> Iterator[_Fields]:
    """Yield an entry for the kind of error that came most often, and what worked after it."""
    kinds = Counter(
        (act.tool, kind)
        for act in read.actions
        if not act.ok and act.tool and (kind := error_of(act.observation)) is not None
    )
    for (tool, kind), _ in kinds.most_common(1):
        order = next(order for name, _, order in _ERRORS if name == kind)
        # A model may call a tool by any words; only the names of real ones are repeated.
        named = tool if tool in read.tools else "the tool"
        yield {
            "purpose": "failure_mode",
            "imperative": order.format(tool=named),
            "handle": _mended_by(read, tool),
            "effect": f"{named} failed with: {kind}",
        }


def _mended_by(read: Digest, tool: str) -> str | None:
    """Return the tool that was called, with success, right after *tool* failed last."""
    at = max(n for n, act in enumerate(read.actions) if act.tool == tool and not act.ok)
    after = read.actions[at + 1 : at + 2]
    return next((a.tool for a in after if a.ok and a.tool in read.tools), None)


def _sequence(read: Digest) -> tuple[str, ...]:
    """Return the tools in the order of their calls; repeats in a row count once."""
    names: list[str] = []
    for act in read.actions:
        if act.ok and act.tool in read.tools and names[-1:] != [act.tool]:
            names.append(act.tool)
    return tuple(names)


def _made(fields: _Fields, cue: Cue) -> EntryDraft | None:
    try:
        return EntryDraft(cue=cue, **fields)
    except (ConfigError, RequestError):
        return None
