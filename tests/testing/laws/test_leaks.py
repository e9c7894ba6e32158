from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import Alternative, Choice, Completion, Delta, TokenLogprob, Usage
from elision.testing.laws import check_never_leaks, check_speaks_of_nothing, recorded_logs
from elision.testing.spellings import SPELLINGS

LONG, SHORT = "Basil Mahfouz", "Paris"
SAME_FORM = [s for s in SPELLINGS if s not in {"reversed", "base64"}]


def _said(text: str) -> Completion:
    return Completion(choices=(Choice(text=text),))


def _tokens(*texts: str, top: tuple[str, ...] = ()) -> tuple[TokenLogprob, ...]:
    others = tuple(Alternative(text, -2.0, text.encode()) for text in top)
    return tuple(TokenLogprob(text, -1.0, text.encode(), others) for text in texts)


@pytest.mark.parametrize("phrase", [LONG, SHORT])
@pytest.mark.parametrize("spelling", SAME_FORM)
def test_a_phrase_is_found_in_any_spelling_of_its_normal_form(phrase: str, spelling: str) -> None:
    text = f"It is {SPELLINGS[spelling](phrase)}, they say."

    with pytest.raises(AssertionError, match="phrase 0 leaves by choice 0, content"):
        check_never_leaks(_said(text), [phrase])


@pytest.mark.parametrize("text", ["Pаris", "P\u00e1ris!", "ⓟⓐⓡⓘⓢ", "𝐏𝐚𝐫𝐢𝐬"])
def test_a_short_phrase_is_found_among_look_alikes(text: str) -> None:
    with pytest.raises(AssertionError, match="phrase 0"):
        check_never_leaks(_said(f"To {text}, then."), [SHORT])


@pytest.mark.parametrize("text", ["a comparison of things", "parisian", "Par is", "P a r i", ""])
def test_a_short_phrase_within_other_words_is_no_leak(text: str) -> None:
    check_never_leaks(_said(text), [SHORT])


@given(st.text(max_size=30))
def test_text_without_the_phrase_is_no_leak(text: str) -> None:
    check_never_leaks(_said(text), ["xylophone factory seven"])


def test_a_phrase_split_over_deltas_is_found_within_its_choice_only() -> None:
    halves = ["Basil Mah", "fouz"]

    with pytest.raises(AssertionError, match="choice 1, content"):
        check_never_leaks([Delta(choice=1, text=half) for half in halves], [LONG])
    check_never_leaks([Delta(choice=n, text=half) for n, half in enumerate(halves)], [LONG])


def test_a_phrase_begun_in_the_prefill_and_ended_in_the_reply_leaks() -> None:
    with pytest.raises(AssertionError, match="content"):
        check_never_leaks(_said("fouz."), [LONG], before="Basil Mah")
    check_never_leaks(_said(" was born"), [LONG], before="Basil Mahfouz")


@pytest.mark.parametrize(
    ("entries", "where"),
    [
        (_tokens("Basil", " Mah", "fouz"), "logprobs"),
        (_tokens("Basil", " M", top=(" Mahfouz",)), "token 1, alternative"),
        (_tokens("x", top=("Basil Mahfouz",)), "token 0, alternative"),
    ],
)
def test_a_phrase_in_the_logprobs_leaks(entries: tuple[TokenLogprob, ...], where: str) -> None:
    with pytest.raises(AssertionError, match=where):
        check_never_leaks([Delta(text="", logprobs=entries)], [LONG])


def test_a_name_that_differs_from_its_bytes_leaks() -> None:
    masked = TokenLogprob(" Mahfouz", -1.0, b" [redacted]")

    with pytest.raises(AssertionError, match="names of all logprobs"):
        check_never_leaks([Delta(logprobs=(*_tokens("Basil"), masked))], [LONG])


def test_half_a_character_is_not_taken_for_a_separator() -> None:
    odd = "Basil Mahßouz"  # a letter too many, spread over two tokens
    entries = tuple(
        TokenLogprob(chr(b) if b < 128 else "\ufffd", -1.0, bytes([b])) for b in odd.encode()
    )

    check_never_leaks([Delta(logprobs=entries)], ["Basil Mahouz"])


def test_an_alternative_in_another_place_is_no_leak() -> None:
    check_never_leaks([Delta(logprobs=_tokens("Basil", " Hume", top=("fouz",)))], [LONG])


def test_bytes_of_several_tokens_are_read_together() -> None:
    wide = SPELLINGS["full-width"](LONG).encode()
    entries = tuple(TokenLogprob("�", -1.0, wide[n : n + 1]) for n in range(len(wide)))

    with pytest.raises(AssertionError, match="bytes of all logprobs"):
        check_never_leaks([Delta(logprobs=entries)], [LONG])


@pytest.mark.parametrize(
    "said",
    [
        [Delta(usage=Usage(), report={"masked": {"Basil Mahfouz": 2}})],
        Completion(report={"target": ["basil-mahfouz"]}),
        ValueError("cannot mask 'Basil Mahfouz'"),
        {"error": {"message": "BASILMAHFOUZ"}},
        'elision_blocked_total{phrase="Basil Mahfouz"} 1',
        b"data: Basil Mahfouz",
    ],
)
def test_a_phrase_in_any_other_channel_leaks(said) -> None:
    with pytest.raises(AssertionError, match="phrase 0"):
        check_never_leaks(said, [LONG])


def test_a_failing_check_does_not_repeat_the_phrase() -> None:
    with pytest.raises(AssertionError) as caught:
        check_never_leaks(_said("xx Basil Mahfouz"), ["other thing", LONG])

    assert "phrase 1" in str(caught.value)
    assert "asil" not in str(caught.value)


def test_a_secret_in_the_cause_of_an_exception_is_spoken_of() -> None:
    try:
        try:
            raise KeyError(LONG)
        except KeyError as exc:
            raise RuntimeError("no such target") from exc
    except RuntimeError as exc:
        caught = exc

    with pytest.raises(AssertionError, match="secret 0 is spoken of in exception KeyError"):
        check_speaks_of_nothing(caught, [LONG])


def test_a_secret_in_a_note_or_an_attribute_is_spoken_of() -> None:
    noted, told = RuntimeError("x"), RuntimeError("x")
    noted.add_note("while masking Basil Mahfouz")
    told.phrase = LONG  # type: ignore[attr-defined]

    for error in (noted, told):
        with pytest.raises(AssertionError, match="secret 0"):
            check_speaks_of_nothing(error, [LONG])


@pytest.mark.parametrize("quiet", [False, True])
def test_a_secret_in_any_log_record_is_heard(quiet: bool) -> None:
    log = logging.getLogger("elision.test_leaks")
    log.propagate = not quiet
    try:
        with recorded_logs() as records:
            log.debug("masking %s", LONG)
            log.info("fine", extra={"target": LONG})
            try:
                raise ValueError(LONG)
            except ValueError:
                log.exception("broke")
    finally:
        log.propagate = True

    assert len(records) == 3
    for record in records:
        with pytest.raises(AssertionError, match="secret 0 is spoken of in log record"):
            check_speaks_of_nothing(record, [LONG])


def test_listening_to_logs_leaves_loggers_as_they_were() -> None:
    log = logging.getLogger("elision.test_leaks")
    log.setLevel(logging.ERROR)
    before = (logging.root.level, [*logging.root.handlers])
    with recorded_logs():
        pass

    assert log.level == logging.ERROR
    assert (logging.root.level, logging.root.handlers) == before


def test_ids_and_counts_speak_of_nothing() -> None:
    with recorded_logs() as records:
        logging.getLogger("elision").info("target %s masked %d", "01J8", 3)

    assert records
    check_speaks_of_nothing([records, RuntimeError("guard failed"), {"masked": 3}], [LONG, "Paris"])
