"""What standing in between costs: added latency, and processor time per streamed chunk."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

from elision.errors import EngineError
from elision.evaluation.bench import Setup
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.evaluation.proxying.client import Load, Seen
from elision.evaluation.proxying.processes import (
    Client,
    Server,
    bare,
    client,
    elision,
    upstream,
)
from elision.evaluation.proxying.rivals import litellm, version
from elision.evaluation.proxying.script import MODEL

N_STREAMS = 16
N_TARGETS = 1000
LATENCY = {"n_pieces": 16, "gap_ms": 5.0}
CPU = {"n_pieces": 64, "gap_ms": 1.0}  # the pace at which bare proxies were measured: 19 to 70 us
SLOW = {"n_pieces": 64, "gap_ms": 4.0}  # each chunk alone: fewer are read and written together
THINK_MS = 80.0

Way: TypeAlias = tuple[Server, str]
"""Where to ask, and for which model."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Yield the latency that is added, beside LiteLLM's, then what a chunk costs by profile."""
    with client() as asking:
        yield from _latency(setup, asking)
        yield from _cost(setup, asking)


# --- Latency -------------------------------------------------------------------------------------


def _latency(setup: Setup, asking: Client) -> Iterator[Figure]:
    with ExitStack() as stack:
        far = stack.enter_context(upstream(**_pace(LATENCY)))
        ours = stack.enter_context(elision(far, profile="passthrough"))
        ways: dict[str, Way] = {"direct": (far, MODEL), "ours": (ours, MODEL)}
        ways["bare"] = stack.enter_context(bare(far)), MODEL
        # It takes half a minute to start.
        rival = None if setup.quick else stack.enter_context(litellm(far))
        if rival is not None:
            ways["litellm"] = rival, MODEL
        for n_streams in (N_STREAMS, 1):
            rounds = _raced(setup, asking, ways, n_streams=n_streams)
            yield from _added(rounds, n_streams)
            if rival is not None:
                yield _against(rounds, n_streams)
    if rival is None:
        yield Figure(figure="proxy.litellm_skipped", value=1, unit="")


@dataclass(frozen=True, slots=True)
class _Round:
    """One round of every way, one directly behind the other."""

    seen: Mapping[str, Seen]

    def added(self, way: str, share: float, *, first: bool = False) -> float:
        """Return by how much a quantile of *way* lies above the direct one's, in ms."""
        times = {
            name: one.first_ms if first else one.total_ms
            for name, one in self.seen.items()
            if name in (way, "direct")
        }
        return percentile(times[way], share) - percentile(times["direct"], share)


def _raced(
    setup: Setup, asking: Client, ways: Mapping[str, Way], *, n_streams: int
) -> list[_Round]:
    n_rounds, seconds = setup.repeats(10, 3), setup.repeats(20, 10) / 10
    rounds = []
    for n in range(-1, n_rounds):
        order = list(ways) if n % 2 else list(ways)[::-1]
        seen = {
            name: _asked(asking, ways[name], n_streams, seconds, LATENCY, seed=n) for name in order
        }
        rounds.append(_Round(seen))
    return rounds[1:]  # the first warms everything


def _asked(
    asking: Client,
    way: Way,
    n_streams: int,
    seconds: float,
    pace: Mapping[str, float],
    *,
    seed: int = 0,
) -> Seen:
    server, model = way
    load = Load(
        url=server.url, model=model, n_streams=n_streams, seconds=seconds, think_ms=THINK_MS,
        n_pieces=int(pace["n_pieces"]), seed=seed,
    )  # fmt: skip
    seen = asking.run(load)
    if seen.errors or not seen.total_ms:
        raise EngineError(f"replies of the bench were not whole: {seen.errors}")
    return seen


def _added(rounds: Sequence[_Round], n_streams: int) -> Iterator[Figure]:
    at = "" if n_streams == N_STREAMS else f"_{n_streams}"
    goals = {} if at else {"p50": Goal(value=1, sense="<="), "p99": Goal(value=5, sense="<=")}
    conditions = _conditions(rounds, n_streams)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        added = [one.added("ours", share) for one in rounds]
        first = statistics.median(one.added("ours", share, first=True) for one in rounds)
        yield of(
            f"proxy.{name}{at}_ms", added, "ms", goal=goals.get(name), **conditions,
            first_event_ms=round(first, 3),
            bare_ms=round(statistics.median(one.added("bare", share) for one in rounds), 3),
        )  # fmt: skip


def _against(rounds: Sequence[_Round], n_streams: int) -> Figure:
    """Return our share of the latency that LiteLLM adds; ours counts as 1 µs at the least."""
    shares = [
        max(one.added("ours", 0.5), 1e-3) / max(one.added("litellm", 0.5), 1e-3) for one in rounds
    ]
    theirs = [one.added("litellm", 0.5) for one in rounds]
    goal = Goal(value=0.1, sense="<=") if n_streams == N_STREAMS else None
    at = "" if n_streams == N_STREAMS else f"_{n_streams}"
    return of(
        f"proxy.litellm_share{at}", shares, "x", goal=goal, litellm=version(),
        litellm_p50_ms=round(statistics.median(theirs), 2),
        litellm_p99_ms=round(statistics.median(one.added("litellm", 0.99) for one in rounds), 2),
        **_conditions(rounds, n_streams),
    )  # fmt: skip


def _conditions(rounds: Sequence[_Round], n_streams: int) -> dict[str, Any]:
    direct = [ms for one in rounds for ms in one.seen["direct"].total_ms]
    return {
        "streams": n_streams, "profile": "passthrough", "register": "empty",
        "what": "a quantile of whole replies through the proxy less that of direct ones, by round",
        "reply": f"{LATENCY['n_pieces']:g} chunks, {LATENCY['gap_ms']:g} ms apart",
        "pause": f"0 to {2 * THINK_MS:g} ms between a caller's requests",
        "replies": len(direct), "processes": "upstream, proxy and client apart, loopback",
        "direct_p50_ms": round(percentile(direct, 0.5), 2),
        "direct_p99_ms": round(percentile(direct, 0.99), 2),
    }  # fmt: skip


# --- Processor time ------------------------------------------------------------------------------


def _cost(setup: Setup, asking: Client) -> Iterator[Figure]:
    with upstream(**_pace(CPU)) as far, elision(far, profile="passthrough") as ours:
        with bare(far) as least:
            yield _chunk_cost(setup, asking, ours, "passthrough", beside=least)
        yield _chunk_cost(setup, asking, ours, "plain")
        yield _chunk_cost(setup, asking, ours, "guarded")
        ours.post("/forget/batch", {"targets": targets(N_TARGETS)})
        yield _chunk_cost(setup, asking, ours, "plain", n_targets=N_TARGETS)
        yield _chunk_cost(setup, asking, ours, "guarded", n_targets=N_TARGETS)
    with (
        upstream(**_pace(SLOW)) as far,
        elision(far, profile="passthrough") as ours,
        bare(far) as least,
    ):
        yield _chunk_cost(setup, asking, ours, "passthrough", beside=least, pace=SLOW)


def _chunk_cost(
    setup: Setup,
    asking: Client,
    ours: Server,
    profile: str,
    *,
    n_targets: int = 0,
    beside: Server | None = None,
    pace: Mapping[str, float] = CPU,
) -> Figure:
    """Return a profile's cost; under its conditions that of the server *beside*, by turns."""
    costs, others = list[float](), list[float]()
    for n in range(-1, setup.repeats(5, 1)):
        costs.append(_chunk_us(setup, asking, (ours, f"{MODEL}@{profile}"), pace, n))
        if beside is not None:
            others.append(_chunk_us(setup, asking, (beside, MODEL), pace, n))
    at = f"_{n_targets}" if n_targets else ""
    at += "" if pace is CPU else f"_{pace['gap_ms']:g}ms"
    goal = Goal(value=60, sense="<=") if profile == "passthrough" and pace is CPU else None
    least: dict[str, Any] = {"bare_us": round(statistics.median(others[1:]), 1)} if others else {}
    return of(
        f"proxy.cpu_us_per_chunk.{profile}{at}", costs[1:], "us", goal=goal, targets=n_targets,
        streams=N_STREAMS, reply=f"{pace['n_pieces']:g} chunks, {pace['gap_ms']:g} ms apart",
        what="user and system time of the server's process, its requests' included", **least,
    )  # fmt: skip


def _chunk_us(setup: Setup, asking: Client, way: Way, pace: Mapping[str, float], n: int) -> float:
    before = way[0].cpu_s()
    seen = _asked(asking, way, N_STREAMS, setup.repeats(2, 1), pace, seed=n)
    n_chunks = len(seen.total_ms) * (int(pace["n_pieces"]) + 3)  # the role, the end, [DONE]
    return (way[0].cpu_s() - before) / n_chunks * 1e6


def targets(n: int) -> list[dict[str, Any]]:
    """Return *n* targets with a phrase each; no reply of the bench has one in it."""
    letters = "bcdfghklmnprstvz"
    names = (
        letters[i % 16] + "o" + letters[i // 16 % 16] + "a" + letters[i // 256] for i in range(n)
    )
    return [{"title": f"t{i}", "phrases": [f"Quenby {name}ell"]} for i, name in enumerate(names)]


def _pace(pace: Mapping[str, float]) -> dict[str, Any]:
    return {"n_pieces": int(pace["n_pieces"]), "gap_ms": pace["gap_ms"]}
