"""What stands at a place where something must not, and from where the engine goes on."""

from __future__ import annotations

from elision.contract import Alternative, Request, Sampling
from elision.middleware.holding.picking import pick
from elision.middleware.holding.resuming import continued


def test_a_draw_is_a_function_of_its_place_and_follows_the_probabilities() -> None:
    options = [Alternative(t, p, t.encode()) for t, p in [("a", -0.5), ("b", -1.5), ("c", -9.0)]]
    draws = [pick(options, Sampling(temperature=1.0), seed=1, attempt=n) for n in range(400)]
    again = [pick(options[::-1], Sampling(temperature=1.0), seed=1, attempt=n) for n in range(400)]
    share = sum(one is not None and one.token == "a" for one in draws) / 400

    assert draws == again
    assert 0.65 < share < 0.80  # 1 / (1 + e^-1) = 0.73
    assert pick(options, Sampling(temperature=0.0), seed=1, attempt=0) == options[0]
    nucleus = [pick(options, Sampling(top_p=0.5), seed=1, attempt=n) for n in range(50)]
    assert set(nucleus) == {options[0]}
    assert pick([], Sampling(), seed=1, attempt=0) is None


def test_an_echoed_prompt_is_continued_as_the_client_saw_it() -> None:
    request = Request(kind="text", prompt="Say", echo=True)

    onward = continued(request, "Say it")
    assert onward is not None
    assert (onward.prompt, onward.echo) == ("Say it", False)
    assert continued(request, "Sa") is None
    assert continued(request, "") is None, "nothing of the prompt stands before it"
