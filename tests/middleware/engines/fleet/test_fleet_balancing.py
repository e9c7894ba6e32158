"""Which replica takes a request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Request
from elision.middleware.engines.fleet.balancing import conversation_of, load, ranked

KEY = b"k" * 32


@dataclass(frozen=True)
class Server:
    base_url: str
    weight: float = 1.0
    n_open: int = 0
    is_healthy: bool = True


SERVERS = st.lists(
    st.builds(
        Server,
        base_url=st.sampled_from([f"http://s{n}" for n in range(6)]),
        weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        n_open=st.integers(0, 40),
        is_healthy=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.base_url,
)


def said(*texts: str, system: str = "Be brief.") -> Request:
    turns = [{"role": "user" if n % 2 == 0 else "assistant", "content": t}
             for n, t in enumerate(texts)]  # fmt: skip
    return Request(messages=({"role": "system", "content": system}, *turns))


@given(SERVERS, st.binary(min_size=1, max_size=32))
def test_every_replica_with_a_weight_is_tried_once_and_the_gone_come_last(
    servers: list[Server], conversation: bytes
) -> None:
    order = ranked(servers, conversation)
    assert sorted(one.base_url for one in order) == sorted(s.base_url for s in servers if s.weight)
    health = [one.is_healthy for one in order]
    assert health == sorted(health, reverse=True)


@given(SERVERS, st.binary(min_size=1, max_size=32))
def test_the_first_is_never_much_more_loaded_than_the_idlest(
    servers: list[Server], conversation: bytes
) -> None:
    order = [one for one in ranked(servers, conversation) if one.is_healthy]
    if order:
        least = min(map(load, order))
        assert load(order[0]) <= 1.5 * least + 4 / order[0].weight
        rest = [load(one) for one in order[1:]]
        assert rest == sorted(rest)


def test_a_conversation_stays_with_its_replica_while_it_grows() -> None:
    short, long = said("Hello"), said("Hello", "Hi!", "And now?")
    assert conversation_of(short, "a", KEY) == conversation_of(long, "a", KEY)


def test_tenants_beginnings_and_processes_are_told_apart() -> None:
    of = conversation_of
    one = of(said("Hello"), "a", KEY)
    assert one != of(said("Hello"), "b", KEY)
    assert one != of(said("Goodbye"), "a", KEY)
    assert one != of(said("Hello", system="Be long."), "a", KEY)
    assert one != of(said("Hello"), "a", b"j" * 32)
    assert of(Request(kind="text", prompt="ab"), "a", KEY) != of(
        Request(kind="text", prompt="ac"), "a", KEY
    )
    ids = of(Request(kind="text", prompt=(1, 2)), "a", KEY)
    assert ids != of(Request(kind="text", prompt=(12,)), "a", KEY)


def test_conversations_spread_by_weight() -> None:
    servers = [Server("http://a"), Server("http://b", weight=3.0)]
    homes = Counter(
        ranked(servers, conversation_of(said(str(n)), "t", KEY))[0].base_url for n in range(800)
    )
    assert 0.7 < homes["http://b"] / 800 < 0.8


def test_a_replica_that_goes_moves_only_its_own_conversations() -> None:
    servers = [Server(f"http://{name}") for name in "abcd"]
    for n in range(100):
        conversation = conversation_of(said(str(n)), "t", KEY)
        home = ranked(servers, conversation)[0]
        left = [one for one in servers if one.base_url != "http://d"]
        if home.base_url != "http://d":
            assert ranked(left, conversation)[0] == home
