"""The epoch without a wait, where there is one to be had."""

from __future__ import annotations

from elision.guards.targets import ForgetTarget, Phrase

from .conftest import Place, on_either


@on_either
def test_the_epoch_at_once_is_the_epoch_or_says_that_it_must_wait(place: Place) -> None:
    register, elsewhere = place.open(), place.open()
    is_file = place.url.startswith("sqlite")
    seen = [register.epoch_at_once("default")]
    ends = place.clock.now + 10

    elsewhere.add(ForgetTarget(title="A", phrases=(Phrase(text="Zyxwv Qponm"),), expires_at=ends))
    seen.append(register.epoch_at_once("default"))
    before = register.epoch("default")
    place.clock.now = ends
    due = register.epoch_at_once("default")
    after = register.epoch("default")

    assert seen == ([0, before] if is_file else [None, None])
    assert due is None
    assert after > before
    assert register.epoch_at_once("default") == (after if is_file else None)
