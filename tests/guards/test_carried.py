"""Masks that go to another process: what travels, what does not, what is compiled of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import TargetError
from elision.guards.carried import MOST_PASSAGES, PRODUCT_BYTES, Carried, CompiledMasks, object_of
from elision.guards.phrases.mask import PhraseMask, PhrasePenalty
from elision.guards.targets import ForgetTarget, Phrase
from elision.guards.verbatim.verbatim import Verbatim
from elision.testing.tokenizers import byte_lexicon

PASSAGE = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 4


def target(**fields: Any) -> ForgetTarget:
    return ForgetTarget(**{"title": "Operation Gnu", **fields})


def carried(*targets: ForgetTarget) -> Carried:
    found = Carried.of(targets)
    assert found is not None
    return found


FULL = target(
    names=("Nemo",),
    phrases=(Phrase(text="blue zebra"), Phrase(text="lion", mode="soft", allow_echo=True)),
    probes=("Who is Nemo?",),
    passages=(PASSAGE,),
    answers=("He is a fish.",),
    case_ref="case 7",
)


def test_only_what_a_mask_needs_travels() -> None:
    body = carried(FULL).body
    assert "blue zebra" in body
    assert "best of times" in body
    assert not [word for word in ("Gnu", "Nemo", "fish", "case 7", "default") if word in body]


@pytest.mark.parametrize("action", ["refuse", "redact"])
def test_of_targets_that_act_later_soft_phrases_alone_travel(action: Any) -> None:
    found = carried(target(action=action, phrases=FULL.phrases, passages=(PASSAGE,)))
    assert "lion" in found.body
    assert "zebra" not in found.body
    assert "times" not in found.body


def test_where_no_mask_is_nothing_travels() -> None:
    assert Carried.of([]) is None
    assert Carried.of([target(action="observe", phrases=FULL.phrases)]) is None
    assert Carried.of([target(state="suspended", phrases=FULL.phrases)]) is None
    assert Carried.of([target(action="refuse", phrases=FULL.phrases[:1])]) is None
    assert Carried.of([target(probes=("Who?",))]) is None


def test_a_digest_names_its_body_and_tells_nothing_of_it() -> None:
    one, other = carried(FULL), carried(FULL)
    assert one.digest != other.digest  # of the same targets: the salt is another
    assert Carried.loads(one.body) == one
    assert "zebra" not in f"{one!r} {one.compile()!r}"


def test_what_is_compiled_forbids_what_the_targets_forbid() -> None:
    compiled = carried(FULL).compile()
    names = [type(recipe).__name__ for recipe in compiled.recipes(byte_lexicon())]
    assert sorted(names) == ["PhraseMask", "PhrasePenalty", "VerbatimMask"]


def test_a_passage_too_short_for_runs_is_a_phrase() -> None:
    compiled = carried(target(passages=("red giraffe",))).compile()
    (recipe,) = compiled.recipes(byte_lexicon())
    assert type(recipe).__name__ == "PhraseMask"


def test_processes_that_share_a_model_compile_the_very_same_filter() -> None:
    found = carried(FULL)
    filters = [one.compile()._verbatim.masked._openings for one in (found, found, carried(FULL))]
    here, there, elsewhere = (bytes(one._bits) for one in filters)
    assert filters[0] is not filters[1]
    assert here == there
    assert here != elsewhere


def test_recipes_are_made_once_per_lexicon() -> None:
    compiled, lexicon = carried(FULL).compile(), byte_lexicon()
    first = compiled.recipes(lexicon)
    assert all(one is two for one, two in zip(first, compiled.recipes(lexicon), strict=True))
    assert compiled.recipes(byte_lexicon())[0] is not first[0]


@given(sizes=st.lists(st.integers(1, MOST_PASSAGES), max_size=6))
def test_of_passages_as_many_are_carried_as_compile_in_time_each_whole(sizes: list[int]) -> None:
    given_ = [(f"{n:06d} " + "times " * (size // 6))[:size] for n, size in enumerate(sizes)]
    found = Carried.of([target(passages=tuple(given_)), target(phrases=FULL.phrases)])
    assert found is not None
    there = {p for one in json.loads(found.body)["targets"] for p in one["passages"]}
    assert sum(map(len, there)) <= MOST_PASSAGES
    left = {*given_} - there
    assert there <= {*given_}
    if left:
        shortest = min(map(len, left))
        assert max(map(len, there), default=0) <= shortest
        assert sum(map(len, there)) + shortest > MOST_PASSAGES


def test_a_passage_that_would_stop_every_request_stays_with_the_text_s_guard() -> None:
    long = PASSAGE * (MOST_PASSAGES // len(PASSAGE) + 1)
    assert Carried.of([target(passages=(long,))]) is None
    assert carried(target(passages=(long, PASSAGE))).body.count("worst of times") == 4
    assert Verbatim.compile([target(passages=(long,))]).hides(PASSAGE)


def test_the_caller_s_words_are_needed_where_they_count() -> None:
    echoed = Phrase(text="lion", allow_echo=True)
    cases = {(FULL.phrases[0],): False, (FULL.phrases[0], echoed): True}
    for phrases, needed in cases.items():
        assert carried(target(phrases=phrases)).needs_user_text is needed
    found = carried(target(passages=(PASSAGE,)))
    assert found.needs_user_text
    assert Carried.loads(found.body).needs_user_text  # nobody has looked
    assert not carried(target(phrases=FULL.phrases[:1])).salted("s").needs_user_text
    hushed = target(action="refuse", phrases=(echoed, Phrase(text="ant", mode="soft")))
    assert not carried(hushed).needs_user_text


def test_who_has_the_secret_comes_to_one_digest_and_nobody_else_does() -> None:
    other = target(phrases=(Phrase(text="emu"),))
    ones = [carried(*targets).salted("s") for targets in ((FULL, other), (other, FULL))]
    assert ones[0] == ones[1] == ones[0].salted("s")
    elsewhere = {carried(FULL, other).salted(secret).digest for secret in ("t", "", "s\udc80")}
    assert len(elsewhere | {ones[0].digest}) == 4
    assert carried(other).salted("s").digest != ones[0].digest
    assert json.loads(ones[0].body)["salt"] != "s"


def test_a_salt_changes_nothing_that_is_forbidden() -> None:
    found = carried(FULL)
    salted = found.salted("secret")
    assert json.loads(salted.body)["targets"] == json.loads(found.body)["targets"]
    names = [type(recipe).__name__ for recipe in salted.compile().recipes(byte_lexicon())]
    assert sorted(names) == ["PhraseMask", "PhrasePenalty", "VerbatimMask"]


def test_masks_of_many_tenants_remember_little_each() -> None:
    recipes = carried(FULL).compile().recipes(byte_lexicon())
    limits = [r.product._masks._limit for r in recipes if isinstance(r, PhraseMask | PhrasePenalty)]
    assert limits == [PRODUCT_BYTES] * 2


# --- bodies that nobody wrote --------------------------------------------------------------------

WHOLE: dict[str, Any] = json.loads(carried(FULL).body)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "phrases", "passages", "beta"]), inner)
    ),
    max_leaves=8,
)


@given(key=st.sampled_from([*WHOLE, "more"]), value=anything)
def test_a_body_is_compiled_or_refused_as_a_target_is(key: str, value: Any) -> None:
    body = json.dumps({**WHOLE, key: value})
    try:
        compiled = Carried.loads(body).compile()
    except TargetError:
        return
    assert compiled.recipes(byte_lexicon())


@given(place=st.sampled_from(["phrases", "passages"]), value=anything)
def test_a_target_of_a_body_is_compiled_or_refused_as_it_is(place: str, value: Any) -> None:
    item = {**WHOLE["targets"][0], place: value}
    try:
        compiled = Carried.loads(json.dumps({**WHOLE, "targets": [item]})).compile()
    except TargetError:
        return
    assert compiled.recipes(byte_lexicon())


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"format":1}',
        '{"format":1,"salt":"","targets":[]}',
        '{"format":2,"salt":"","targets":[{"phrases":["a"],"passages":[]}]}',
        '{"format":1,"salt":5,"targets":[{"phrases":["a"],"passages":[]}]}',
        '{"format":1,"salt":"","targets":{"phrases":["a"]}}',
        '{"format":1,"salt":"","targets":["a"]}',
        '{"format":1,"salt":"","targets":[{}]}',
        '{"format":1,"salt":"","targets":[{"phrases":"abc"}]}',
        '{"format":1,"salt":"","targets":[{"phrases":[],"passages":"abc"}]}',
        '{"format":1,"salt":"","targets":[{"phrases":[{"mode":"hard"}]}]}',
        '{"format":1,"salt":"","targets":[{"phrases":[{"text":"a","beta":NaN}]}]}',
        '{"format":1,"salt":"","targets":[{"phrases":[{"text":"a","beta":true}]}]}',
        '{"format":1,"salt":"","targets":[{"phrases":["a"],"phrases":["b"]}]}',
        '{"format":1,"salt":"","targets":[{"phrases":["a"],"names":["b"]}]}',
    ],
)
def test_a_body_of_another_form_is_refused(body: str) -> None:
    with pytest.raises(TargetError):
        Carried.loads(body).compile()


def test_an_object_is_read_strictly() -> None:
    assert object_of('{"a":{"b":[1]},"c":Infinity}')["a"] == {"b": [1]}
    for text in (None, 5, b"{}", "[]", "", '{"a":1,"a":1}', '{"a":{"b":1,"b":2}}', '{"a":NaN}'):
        with pytest.raises(ValueError, match=r"a key|no string|no object|number|Expecting"):
            object_of(text)
    with pytest.raises(ValueError, match="too long"):
        object_of('{"a":1}', most=6)


def test_masks_of_no_target_forbid_nothing() -> None:
    assert CompiledMasks([]).recipes(byte_lexicon()) == ()
