"""Paces: what a token takes one way and another, question by question, in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch

from elision.contract import Completion, Request, Sampling, collect
from elision.evaluation.benches.racing import Ours, Stable
from elision.evaluation.figures import Figure, Goal, of

if TYPE_CHECKING:
    from elision.contract import Delta

UNWANTED: Final = -100.0
"""Nats on what would end a reply."""

Group: TypeAlias = Sequence[Request]
"""Requests that are made at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What answering a group took.

    Attributes:
        n_tokens: Tokens written, all replies together.
        seconds: From the requests to the last reply's end.
        first_s: From the requests to the first text.
        notes: What the recipes noted, summed.
    """

    n_tokens: int
    seconds: float
    first_s: float = 0.0
    notes: Mapping[str, float]

    @property
    def ms_in_all(self) -> float:
        """Milliseconds per token, prompts included."""
        return 1e3 * self.seconds / self.n_tokens

    @property
    def ms_behind_first(self) -> float:
        """Milliseconds per token behind the first, no prompt in them; of a single reply."""
        return 1e3 * (self.seconds - self.first_s) / (self.n_tokens - 1)


Paces: TypeAlias = "dict[str, list[Pace]]"
"""By way of answering, in the order of the groups."""

# --- answering -----------------------------------------------------------------------------------


def endless(stable: Stable, requests: Sequence[Request]) -> list[Request]:
    """Return *requests*, greedy, so that every reply runs to its limit, however it is written."""
    eos = stable.engine.borrow(lambda model: model.eos).result()
    bias = dict.fromkeys(sorted(eos), UNWANTED)
    sampling = Sampling(temperature=0.0, seed=0, logit_bias=bias)
    return [replace(request, sampling=sampling) for request in requests]


def in_turns(ways: Mapping[str, Ours], groups: Sequence[Group], warm_up: Request) -> Paces:
    """Have all *ways* answer group after group, in turns at going first; each is warmed first."""
    for way in ways.values():
        answer(way, [warm_up])
    paces: Paces = {name: [] for name in ways}
    names = list(ways)
    for turn, group in enumerate(groups):
        shift = turn % len(names)
        for name in (*names[shift:], *names[:shift]):
            paces[name].append(answer(ways[name], group))
    return paces


def answer(way: Ours, group: Group) -> Pace:
    """Answer *group* at once, with nothing else on the machine."""
    torch.set_num_threads(way.n_threads)  # MKL's count is the process's, not the thread's
    return asyncio.run(_answer(way, group))


async def _answer(way: Ours, group: Group) -> Pace:
    firsts = list[float]()
    start = time.perf_counter()
    streams = (way.engine.stream(way.plan(request)) for request in group)
    done = await asyncio.gather(*(collect(_timing(stream, firsts)) for stream in streams))
    took = time.perf_counter() - start
    return Pace(
        n_tokens=sum(each.usage.completion_tokens for each in done),
        seconds=took,
        first_s=min(firsts) - start,
        notes=_sums(done),
    )


async def _timing(
    deltas: AsyncGenerator[Delta, None], firsts: list[float]
) -> AsyncGenerator[Delta, None]:
    """Yield *deltas*; enter when the first came."""
    is_first = True
    async for delta in deltas:
        if is_first:
            firsts.append(time.perf_counter())
        is_first = False
        yield delta


def _sums(done: Sequence[Completion]) -> Mapping[str, float]:
    sums: Counter[str] = Counter()
    for each in done:
        sums.update(each.report["notes"])
    return sums


# --- gates ---------------------------------------------------------------------------------------


def entropies(way: Ours, requests: Sequence[Request]) -> list[float]:
    """Return the entropy in nats of the model's scores at every token of the replies, not timed."""
    torch.set_num_threads(way.n_threads)
    return asyncio.run(_entropies(way, requests))


async def _entropies(way: Ours, requests: Sequence[Request]) -> list[float]:
    plans = [replace(way.plan(request), trace=True) for request in requests]
    done = await asyncio.gather(*(collect(way.engine.stream(plan)) for plan in plans))
    return [token.entropy_before for each in done for token in each.choices[0].trace]


def exceeded(nats: Sequence[float], share: float) -> float:
    """Return what the largest *share* of *nats* exceed; the least of them where all must."""
    ordered = sorted(nats, reverse=True)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


# --- figures -------------------------------------------------------------------------------------


def usage(paces: Sequence[Pace]) -> float:
    """Return at what share of all tokens a recipe says that it guided."""
    guided = sum(
        count for pace in paces for note, count in pace.notes.items() if note.endswith("_guided")
    )
    return guided / sum(pace.n_tokens for pace in paces)


def cost(
    name: str,
    paces: Paces,
    way: str,
    *,
    most: float | None = None,
    in_all: bool = False,
    over_all: bool = False,
    **conditions: Any,
) -> Figure:
    """Return how many times as long a token takes *way* as ``plain``, and how often it guided.

    Args:
        name: The figure's.
        paces: Of *way* and of ``plain``, over the same groups.
        way: Which one.
        most: The goal.
        in_all: Whether prompts count, as where a group is several requests.
        over_all: Whether the value is all time over all time, as where not every group costs
            alike; else it is the median of the groups.
        conditions: What else the figure says.
    """
    of_pace = attrgetter("ms_in_all" if in_all else "ms_behind_first")
    ours, plain = ([of_pace(pace) for pace in paces[each]] for each in (way, "plain"))
    overall = sum(ours) / sum(plain)
    return of(
        name, [guided / alone for guided, alone in zip(ours, plain, strict=True)], "x",
        goal=None if most is None else Goal(value=most, sense="<="),
        pick=(lambda _: overall) if over_all else statistics.median, **conditions,
        ms_per_token=round(statistics.fmean(ours), 2), plain_ms=round(statistics.fmean(plain), 2),
        usage=round(usage(paces[way]), 4),
        statistic="all time over all time" if over_all else "time over time, median of the pairs",
    )  # fmt: skip
