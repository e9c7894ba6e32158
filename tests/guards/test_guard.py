"""The compiled guard: which phrase is enforced how, and what it says about a text."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest

from elision.contract import ALLOW, Context, Refuse
from elision.errors import TargetError
from elision.guards.guard import Guard
from elision.guards.phrases.mask import PhraseMask, PhrasePenalty
from elision.guards.phrases.pattern_set import Hit
from elision.guards.phrases.watch import PhraseCount, PhraseWatch
from elision.guards.targets import Action, ForgetTarget, Mode, Phrase, State
from elision.testing.laws import awkward_rows, check_adjust, check_neutral, check_sessions
from elision.testing.tokenizers import byte_lexicon

LEXICON = byte_lexicon()
CONTEXT = Context(lexicon=LEXICON, vocab_size=259)
ROWS = awkward_rows(259)
SECRET = "Hsiao Yun-Hwa"


def target(
    text: str = SECRET,
    action: Action = "restrict",
    mode: Mode = "hard",
    state: State = "active",
    *,
    allow_echo: bool = False,
) -> ForgetTarget:
    phrase = Phrase(text=text, mode=mode, allow_echo=allow_echo)
    return ForgetTarget(id="t", title="T", phrases=(phrase,), action=action, state=state)


EVERY = Guard.compile(
    [
        target("restricted"),
        target("redacted!", "redact"),
        target("softly", mode="soft"),
        target("seen only", "observe"),
    ]
)


@pytest.mark.parametrize(
    ("action", "mode", "recipe"),
    [
        ("restrict", "hard", PhraseMask),
        ("redact", "hard", PhraseWatch),
        ("refuse", "hard", PhraseWatch),
        ("observe", "hard", PhraseCount),
        ("observe", "soft", PhraseCount),
        ("restrict", "soft", PhrasePenalty),
        ("refuse", "soft", PhrasePenalty),
    ],
)
def test_action_and_mode_decide_the_recipe(action: Action, mode: Mode, recipe: type) -> None:
    recipes = Guard.compile([target(action=action, mode=mode)]).recipes(LEXICON)
    assert [type(made) for made in recipes] == [recipe]


def test_a_guard_without_phrases_has_no_recipes() -> None:
    for guard in (Guard.compile([]), Guard.compile([target(state="revoked")])):
        assert guard.recipes(LEXICON) == ()
        assert (guard.n_targets, guard.n_phrases) == (0, 0)
        assert guard.scan(SECRET) == ()
        assert not guard.hides(SECRET)
        assert guard.holdback().feed(SECRET) == (SECRET, ALLOW)


@pytest.mark.parametrize("recipe", EVERY.recipes(LEXICON), ids=lambda recipe: type(recipe).__name__)
def test_every_recipe_keeps_the_laws(recipe: PhraseMask) -> None:
    text = [*b"a restricte softl redacte seen onl seen only caf\xc3"]
    check_adjust(recipe, CONTEXT, ROWS, tokens=text)
    check_sessions(recipe, CONTEXT, ROWS[:3], tokens=text, other=ord("d"))


def test_a_penalty_of_nothing_is_neutral() -> None:
    penalty = PhrasePenalty(product=EVERY.recipes(LEXICON)[1].product, nats=0)  # type: ignore[attr-defined]
    check_neutral(penalty, CONTEXT, ROWS, tokens=[*b"softl"])


def test_recipes_are_made_once_per_lexicon() -> None:
    guard = Guard.compile([target()])
    other = byte_lexicon()
    assert guard.recipes(LEXICON) is guard.recipes(LEXICON)
    assert guard.recipes(other) is not guard.recipes(LEXICON)
    for _ in range(5):
        guard.recipes(byte_lexicon())
    assert len(guard._recipes) == 4


def test_threads_that_ask_at_once_get_the_same_recipes() -> None:
    guard, found = Guard.compile([target()]), []
    threads = [
        threading.Thread(target=lambda: found.append(guard.recipes(LEXICON))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(recipes) for recipes in found}) == 1


@pytest.mark.parametrize(
    ("action", "out", "verdict"),
    [
        ("restrict", "It is ", Refuse()),
        ("refuse", "It is ", Refuse()),
        ("redact", "It is [redacted].", ALLOW),
        ("observe", f"It is {SECRET}.", ALLOW),
    ],
)
def test_without_scores_the_next_best_is_done(action: Action, out: str, verdict: object) -> None:
    holdback = Guard.compile([target(action=action)]).holdback()
    text, said = holdback.feed(f"It is {SECRET}.")
    if said == ALLOW:
        text += holdback.finish()[0]
    assert (text, said) == (out, verdict)


def test_hold_back_watches_restricting_and_redacting_targets_together() -> None:
    guard = Guard.compile([target("Al Gore"), target(SECRET, "redact")])
    assert guard.holdback().feed(f"{SECRET}, Al Gore.") == ("[redacted], ", Refuse())


def test_the_marker_can_be_chosen() -> None:
    guard = Guard.compile([target(action="redact")], marker="█")
    assert guard.holdback().feed(f"{SECRET}!")[0] == "█!"
    watch = guard.recipes(LEXICON)[0]
    assert isinstance(watch, PhraseWatch)
    assert watch.marker == "█"


def test_hold_back_knows_the_callers_words_and_the_prefill() -> None:
    guard = Guard.compile([target(action="redact", allow_echo=True)])
    assert guard.holdback(user_text=SECRET.upper()).feed(f"{SECRET}!")[0] == f"{SECRET}!"
    assert guard.holdback(before="Hsiao Yun").feed("-Hwa!")[0] == "[redacted]!"
    assert guard.holdback(json=True).feed(f'"{SECRET}!')[1] == Refuse()


def test_a_scan_tells_which_phrase_matched_where_and_how() -> None:
    targets = [
        ForgetTarget(id="a", title="A", phrases=(Phrase(text="x1"), Phrase(text="male"))),
        ForgetTarget(id="b", title="B", phrases=(Phrase(text=SECRET),), action="observe"),
    ]
    hits = Guard.compile(targets).scan("H.S.I.A.O yun hwa is m-a-l-e, MALE")
    assert hits == (
        Hit("b", 0, "N", 0, 17),
        Hit("a", 1, "spelled", 21, 28),
        Hit("a", 1, "N_b", 30, 34),
    )


def test_only_what_must_not_leave_is_hidden() -> None:
    assert EVERY.hides("it is Restricted")
    assert EVERY.hides("it is redacted")
    assert not EVERY.hides("softly, seen only")
    assert {hit.start for hit in EVERY.scan("softly, seen only")} == {0, 8}


def test_counts_and_epoch_are_told_and_nothing_else() -> None:
    guard = Guard.compile([target(), target("topsecret", "redact")], epoch=7)
    assert repr(guard) == "Guard(epoch=7, 2 targets, 2 phrases)"
    told = repr(guard.recipes(LEXICON)) + repr(vars(guard)) + repr(guard.holdback().__dict__)
    assert "Hsiao" not in told
    assert "topsecret" not in told


def test_a_phrase_that_cannot_be_enforced_fails_the_compilation() -> None:
    with pytest.raises(TargetError):
        Guard.compile([target("...")])


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guard = Guard.compile([target()])
        guard.recipes(LEXICON)
        guard.holdback().feed(SECRET)
    assert caplog.records == []


def test_the_room_is_entered_without_heavy_packages() -> None:
    code = (
        "import sys, elision.guards; "
        "print([m for m in ('torch', 'transformers', 'sqlalchemy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
