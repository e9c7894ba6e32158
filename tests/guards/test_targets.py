"""What a body of POST /v1/forget may hold, and what is said about one that may not stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import PermissionDeniedError, TargetError
from elision.guards.phrases.normal import N
from elision.guards.scope import Scope
from elision.guards.targets import GIVEN, ForgetTarget, Phrase

SECRET = "Zyxwv Qponm"

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(N)
titles = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
phrases = st.builds(
    Phrase,
    text=texts,
    mode=st.sampled_from(["hard", "soft"]),
    boundary=st.sampled_from(["auto", "yes", "no"]),
    allow_echo=st.booleans(),
    beta=st.floats(0, 1, exclude_min=True),
)
targets = st.builds(
    ForgetTarget,
    title=titles,
    tenant=st.sampled_from(["default", "a", "B.2_-"]),
    kind=st.sampled_from(["person", "fact", "string"]),
    names=st.lists(texts, max_size=3).map(tuple),
    probes=st.lists(texts, max_size=3).map(tuple),
    passages=st.lists(texts.filter(N), max_size=2).map(tuple),
    answers=st.lists(texts, max_size=3).map(tuple),
    exceptions=st.lists(texts, max_size=3).map(tuple),
    scope=st.builds(Scope, models=st.lists(titles, max_size=2).map(tuple)),
    effective_at=st.none() | st.integers(0, 10**9).map(float),
    expires_at=st.none() | st.integers(10**9 + 1, 10**11).map(float),
    case_ref=st.just("") | titles,
    phrases=st.lists(phrases, min_size=1, max_size=4).map(tuple),
    action=st.sampled_from(["restrict", "refuse", "redact", "observe"]),
)
KEPT = GIVEN


@given(targets)
def test_a_target_written_to_the_wire_reads_back_as_itself(target: ForgetTarget) -> None:
    body = {key: value for key, value in target.to_body().items() if key not in KEPT}
    assert ForgetTarget.from_body(body, tenant=target.tenant) == target


@given(targets)
def test_a_phrase_of_defaults_may_be_written_as_its_text(target: ForgetTarget) -> None:
    body = {"title": target.title, "phrases": [phrase.text for phrase in target.phrases]}
    read = ForgetTarget.from_body(body, tenant="default")
    assert read.phrases == tuple(Phrase(text=phrase.text) for phrase in target.phrases)
    assert (read.kind, read.action, read.names) == ("string", "restrict", ())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(SECRET) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(SECRET), inner),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["title", "kind", "names", "phrases", "action", "tenant", SECRET]),
        json_values,
    )
)
def test_any_json_is_read_or_refused_without_being_repeated(body: dict[str, object]) -> None:
    outcome = _outcome(body)
    if isinstance(outcome, ForgetTarget):
        outcome.validate()
    else:
        assert SECRET not in f"{outcome} {outcome.param}"
        assert outcome.status in {400, 403}


def _outcome(body: dict[str, object]) -> ForgetTarget | TargetError | PermissionDeniedError:
    try:
        return ForgetTarget.from_body(body, tenant="default")
    except (TargetError, PermissionDeniedError) as error:
        return error


def _body(**changes: object) -> dict[str, object]:
    return {"title": "A title", "phrases": [SECRET]} | changes


def _phrase(**changes: object) -> dict[str, object]:
    return _body(phrases=["fine", {"text": SECRET} | changes])


WRONG = {
    "no object": ([SECRET], "the body is of type list; write an object with a title", None),
    "an unknown key": (
        _body(**{SECRET: 1}),
        "key 3 of the body is not known; write only title, kind, phrases, names, probes, passages, "
        "answers, exceptions, action, scope, effective_at, expires_at, review_at, case_ref, "
        "legal_basis, tenant",
        None,
    ),
    "no title": ({"phrases": [SECRET]}, "title is missing; write what to call the target", "title"),
    "title of null": (_body(title=None), "title is null; write a string", "title"),
    "a blank title": (_body(title="  "), "title is empty; write at least one character", "title"),
    "too long a title": (
        _body(title=SECRET * 20),
        "title has 220 characters, at most 200 are possible; shorten it",
        "title",
    ),
    "a title of two lines": (
        _body(title=f"{SECRET}\x1b[2J"),
        "title holds line breaks or control characters; write one line of plain text",
        "title",
    ),
    "nothing at all": (
        _body(phrases=[]),
        "there is nothing to enforce: phrases, names, probes, passages and answers are all empty; "
        "write the texts that must not be said into phrases",
        "phrases",
    ),
    "phrases as a string": (
        _body(phrases=SECRET),
        "phrases is of type str; write a list",
        "phrases",
    ),
    "names as an object": (_body(names={}), "names is of type dict; write a list", "names"),
    "a name of no text": (
        _body(names=["fine", 3]),
        "names[1] is of type int; write a string",
        "names[1]",
    ),
    "a passage without letters": (
        _body(passages=["fine", "☃ !"]),
        "passages[1] has no letters or digits, and only these are compared; leave it out or write "
        "it in words",
        "passages[1]",
    ),
    "an unknown kind": (
        _body(kind=SECRET),
        "kind is not known; write one of "
        "person, organisation, work, fact, passage, topic, pii, string",
        "kind",
    ),
    "an unknown action": (
        _body(action=SECRET),
        "action is not known; write one of restrict, refuse, redact, observe",
        "action",
    ),
    "an unknown mode": (
        _phrase(mode=SECRET),
        "phrases[1].mode is not known; write one of hard, soft",
        "phrases[1].mode",
    ),
    "an unknown boundary": (
        _phrase(boundary=True),
        "phrases[1].boundary is not known; write one of auto, yes, no",
        "phrases[1].boundary",
    ),
    "an echo that is no flag": (
        _phrase(allow_echo="no"),
        "phrases[1].allow_echo is of type str; write true or false",
        "phrases[1].allow_echo",
    ),
    "a beta of zero": (
        _phrase(beta=0),
        "phrases[1].beta lies outside (0, 1]; write 1 to forbid only the whole phrase",
        "phrases[1].beta",
    ),
    "a beta of no number": (
        _phrase(beta=True),
        "phrases[1].beta is of type bool; write a number",
        "phrases[1].beta",
    ),
    "a beta that is not a number": (
        _phrase(beta=float("nan")),
        "phrases[1].beta lies outside (0, 1]; write 1 to forbid only the whole phrase",
        "phrases[1].beta",
    ),
    "a phrase with an unknown key": (
        _phrase(**{SECRET: 1}),
        "key 2 of phrases[1] is not known; write only text, mode, boundary, allow_echo, beta",
        "phrases[1]",
    ),
    "a phrase without a text": (
        _body(phrases=[{"mode": "hard"}]),
        "phrases[0].text is missing; write the phrase there",
        "phrases[0].text",
    ),
    "a phrase that is a number": (
        _body(phrases=[7]),
        "phrases[0] is of type int; write a string, or an object with a text",
        "phrases[0]",
    ),
    "an empty phrase": (
        _body(phrases=[""]),
        "phrases[0].text is empty; write at least one character",
        "phrases[0].text",
    ),
    "a phrase of marks": (
        _body(phrases=["?!\u200b\u0301"]),
        "phrases[0].text has no letters or digits, and only these are compared; "
        "leave it out or write it in words",
        "phrases[0].text",
    ),
    "a phrase of letters that are not seen": (
        _body(phrases=["\u115f\u3164"]),
        "phrases[0].text has no letters or digits, and only these are compared; "
        "leave it out or write it in words",
        "phrases[0].text",
    ),
    "too long a phrase": (
        _body(phrases=["x" * 10_001]),
        "phrases[0].text has 10001 characters, at most 10000 are possible; shorten it",
        "phrases[0].text",
    ),
    "half a character": (
        _body(phrases=[SECRET + "\ud83d"]),
        "phrases[0].text holds half of a surrogate pair; write whole characters",
        "phrases[0].text",
    ),
    "too many phrases": (
        _body(phrases=[SECRET] * 50_001),
        "phrases has 50001 entries, at most 50000 are possible; split the target",
        "phrases",
    ),
    "too many names": (
        _body(names=[SECRET] * 50_001),
        "names has 50001 entries, at most 50000 are possible; split the target",
        "names",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_body_is_refused_with_what_to_write_instead(wrong: str) -> None:
    body, message, param = WRONG[wrong]
    with pytest.raises(TargetError) as caught:
        ForgetTarget.from_body(body, tenant="default")
    assert str(caught.value) == message
    assert caught.value.param == param
    assert (caught.value.status, caught.value.code) == (400, "invalid_target")


def test_limits_themselves_are_allowed() -> None:
    body = _body(title="t" * 200, phrases=["x" * 10_000, *["y"] * 49_999])
    assert len(ForgetTarget.from_body(body, tenant="x" * 64).phrases) == 50_000


@pytest.mark.parametrize("tenant", ["", "x" * 65, "a b", "../x", "ä", "a\n", None])
def test_a_bad_tenant_is_refused(tenant: object) -> None:
    target = ForgetTarget(title="t", phrases=(Phrase(text=SECRET),), tenant=tenant)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="write 1 to 64 of the characters") as caught:
        target.validate()
    assert caught.value.param == "tenant"


def test_a_body_may_name_its_own_tenant_and_no_other() -> None:
    assert ForgetTarget.from_body(_body(tenant="a"), tenant="a").tenant == "a"
    with pytest.raises(PermissionDeniedError, match="leave tenant out") as caught:
        ForgetTarget.from_body(_body(tenant="b"), tenant="a")
    assert caught.value.status == 403


def test_a_text_where_a_phrase_belongs_is_refused_by_its_place() -> None:
    target = ForgetTarget(title="t", phrases=("fine", SECRET))  # type: ignore[arg-type]
    with pytest.raises(TargetError) as caught:
        target.validate()
    assert str(caught.value) == "phrases[0] is of type str; write Phrase(text=...)"


def test_times_are_written_in_utc_to_the_millisecond() -> None:
    target = ForgetTarget(title="t", phrases=(), created_at=0.25, revoked_at=1e9)
    body = target.to_body()
    assert body["created_at"] == "1970-01-01T00:00:00.250Z"
    assert body["revoked_at"] == "2001-09-09T01:46:40.000Z"


def test_a_target_printed_by_accident_tells_nothing() -> None:
    target = ForgetTarget(title=SECRET, names=(SECRET,), phrases=(Phrase(text=SECRET),))
    assert SECRET not in f"{target!r} {target} {target.phrases[0]!r}"
