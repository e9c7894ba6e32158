"""Replies held to a grammar: what may come next is what some whole text goes on with."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from elision.contract import ALLOW, Context, Here, Session
from elision.errors import RequestError
from elision.lexicon import TokenizerLexicon
from elision.middleware.interventions.grammar import Grammar, check, of_schema
from elision.middleware.interventions.grammar.compiled import N_KEPT, Compiler
from elision.testing import byte_lexicon
from elision.testing.laws import awkward_rows, check_adjust, check_sessions

END, STOP = 300, 301
"""Tokens that end a reply: one that writes nothing, one that writes."""
WORDS = ['"a', 'b"', '":', ",", '{"', "true", "-1", "12", "é", '"}', "]]", "nul", "\\n"]
PIECES = [bytes([byte]) for byte in range(256)] + [word.encode() for word in WORDS]
LEXICON = TokenizerLexicon(
    [*PIECES, *[b""] * (END - len(PIECES)), b"", b"}", "é".encode()[:1]], special=range(269, 301)
)
N_ROW = 310


def context(**more: Any) -> Context:
    return Context(lexicon=LEXICON, vocab_size=N_ROW, eos=frozenset({END, STOP}), **more)


def opened(schema: dict[str, Any], **more: Any) -> Session:
    return Grammar(of_schema(schema)).begin(context(**more))


def allowed(session: Session, n: int = N_ROW) -> set[int]:
    row = torch.zeros(n)
    return set((~session.adjust(row, Here(row)).isneginf()).nonzero().flatten().tolist())


def after(session: Session, text: bytes) -> Session:
    for byte in text:
        session = session.advance(byte)
    return session


# --- parity with an oracle that lists every text -------------------------------------------------


def texts_of(schema: Any) -> Iterator[str]:
    """Yield texts that may satisfy *schema*, slowly and obviously: every one of a small world."""
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from texts_of(part)
    elif "enum" in schema:
        write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        yield from map(write, schema["enum"])
    elif schema["type"] == "object":
        yield from objects_of(schema)
    elif schema["type"] == "array":
        items = [*texts_of(schema["items"])]
        for n in range(schema["minItems"], schema["maxItems"] + 1):
            for chosen in itertools.product(items, repeat=n):
                yield "[" + ",".join(chosen) + "]"
    elif schema["type"] == "integer":
        low, high = schema["minimum"], schema["maximum"]
        yield from map(str, range(low, high + 1))
        yield from ["-0"] if low < 0 <= high else []
    else:
        yield from {"boolean": ["true", "false"], "null": ["null"]}[schema["type"]]


def objects_of(schema: Any) -> Iterator[str]:
    members = [
        [*(f'"{name}":{text}' for text in texts_of(part)),
         *([] if name in schema["required"] else [None])]
        for name, part in schema["properties"].items()
    ]  # fmt: skip
    for chosen in itertools.product(*members):
        yield "{" + ",".join(text for text in chosen if text is not None) + "}"


scalars = st.one_of(
    st.lists(st.sampled_from(["a", "ab", "abc", "é", "n\n", 'q"', 1, 12, True, None]), min_size=1,
             max_size=4, unique_by=repr).map(lambda values: {"enum": values}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
    st.tuples(st.integers(-12, 12), st.integers(0, 14)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": sum(pair)}
    ),
)  # fmt: skip


def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.lists(st.sampled_from(["a", "ab", "b", "é"]), max_size=3, unique=True)
    members = names.flatmap(
        lambda found: st.tuples(
            st.fixed_dictionaries(dict.fromkeys(found, inner)),
            st.sets(st.sampled_from(found)) if found else st.just(set()),
        )
    )
    return st.one_of(
        members.map(
            lambda pair: {"type": "object", "properties": pair[0], "required": sorted(pair[1]),
                          "additionalProperties": False}
        ),
        st.tuples(inner, st.integers(0, 1), st.integers(1, 2)).map(
            lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[2]}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
    )  # fmt: skip


schemas = st.recursive(scalars, wider, max_leaves=4)


@given(schema=schemas, draw=st.randoms(use_true_random=False))
def test_a_token_may_come_exactly_if_some_valid_text_goes_on_with_it(
    schema: dict[str, Any], draw: Any
) -> None:
    every = {text.encode() for text in itertools.islice(texts_of(schema), 3000)}
    if len(every) == 3000:
        return
    judge = Draft202012Validator(schema)
    assert all(judge.is_valid(json.loads(text)) for text in every)
    session, written = opened(schema), b""
    for _ in range(60):
        ahead = {text[len(written) :] for text in every if text.startswith(written)}
        want = {
            token
            for token in range(len(LEXICON))
            if (piece := LEXICON.bytes_of(token)) and any(t.startswith(piece) for t in ahead)
        } - {STOP}
        want |= {END, STOP} if b"" in ahead else set()
        assert allowed(session) == want, (schema, written)
        if not (going := want - {END, STOP}):
            break
        token = draw.choice(sorted(going))
        session, written = session.advance(token), written + LEXICON.bytes_of(token)


FREE = [
    ({"type": "string"}, r'"a\n\t\"\\\b\f\r\u001fé東🙂"'),
    ({"type": "string", "maxLength": 2}, '"é🙂"'),
    ({"type": "string", "minLength": 1, "pattern": "^[a-c]+$"}, '"abc"'),
    ({"type": "number"}, "-12.5e+10"),
    ({"type": "object"}, '{"any key":[1,{"x":null}]}'),
    ({"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "boolean"}},
     "[null,true]"),
    ({"type": "string", "format": "date"}, '"2024-02-29"'),
    ({"type": "string", "format": "int32"}, '"an annotation"'),
    ({"allOf": [{"minimum": 3}, {"maximum": 4}], "type": "integer"}, "4"),
    ({"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
     "[[],[[]]]"),
    ({"type": "array", "uniqueItems": False, "items": {"const": 1}}, "[1,1]"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "text"), FREE, ids=lambda value: str(value)[:40])
def test_every_byte_of_a_valid_text_may_come_and_so_may_its_end(
    schema: dict[str, Any], text: str
) -> None:
    Draft202012Validator(schema).validate(json.loads(text))
    session = opened(schema)
    for byte in text.encode():
        assert byte in allowed(session)
        session = session.advance(byte)
    assert END in allowed(session)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, '"\n'),
        ({"type": "string"}, r'"\x'),
        ({"type": "string", "maxLength": 2}, '"abc'),
        ({"type": "integer", "maximum": 41}, "42"),
        ({"type": "string", "format": "date"}, '"2023-02-30'),
        ({"type": "object"}, "{\n"),
        ({"type": "object"}, '{"a": 1'),
        ({"type": "array", "items": False}, "[1"),
        ({"enum": ["a"]}, ' "a"'),
    ],
    ids=str,
)
def test_a_text_that_no_valid_one_begins_with_is_stopped(schema: dict[str, Any], text: str) -> None:
    session = opened(schema)
    blocked = []
    for byte in text.encode():
        blocked.append(byte not in allowed(session))
        session = session.advance(byte)
    assert any(blocked)
    assert allowed(session) == set(), "behind a forbidden token nothing may come"


# --- the ends of a text, and rows of any width ---------------------------------------------------


def test_replies_end_where_the_text_may_and_must_where_nothing_else_can_follow() -> None:
    session = after(opened({"type": "integer", "minimum": 1, "maximum": 12}), b"1")
    assert allowed(session) >= {END, STOP, ord("2")}
    assert allowed(session.advance(ord("2"))) == {END, STOP}
    assert {END, STOP}.isdisjoint(allowed(opened({"type": "integer"})))


def test_a_token_that_ends_replies_is_no_text_even_if_it_writes() -> None:
    session = after(opened({"type": "object"}), b"{")
    assert LEXICON.bytes_of(STOP) == b"}"
    assert ord("}") in allowed(session)
    assert STOP not in allowed(session)
    assert allowed(session.advance(STOP)) == set()


@pytest.mark.parametrize("n", [40, 259, len(LEXICON), 1000])
def test_rows_may_be_narrower_and_wider_than_the_vocabulary(n: int) -> None:
    session = opened({"type": "string"})
    opening = {t for t in range(len(LEXICON)) if LEXICON.bytes_of(t).startswith(b'"')}
    assert allowed(session, n) == {t for t in opening if t < n}
    assert allowed(after(session, b'"a"'), n) == {t for t in (END, STOP) if t < n}


@pytest.mark.parametrize("token", [-1, 256 + 40, END, 10_000])
def test_after_a_token_that_writes_nothing_nothing_is_allowed(token: int) -> None:
    assert allowed(opened({"type": "string"}).advance(token)) == set()


def test_half_a_character_waits_for_its_other_half() -> None:
    session = after(opened({"type": "string"}), b'"\xc3')
    assert allowed(session) == {*range(0x80, 0xC0)}
    assert ord('"') in allowed(session.advance(0xA9))


def test_where_the_vocabulary_cannot_write_what_must_come_nothing_is_allowed() -> None:
    poor = TokenizerLexicon([b"[", b"]", b"1", b""], special=(3,))
    session = Grammar(of_schema({"const": [2]})).begin(
        Context(lexicon=poor, vocab_size=4, eos=frozenset({3}))
    )
    row = torch.zeros(4)
    assert session.adjust(row, Here(row)).tolist() == [0, *[-torch.inf] * 3]
    assert session.advance(0).adjust(row, Here(row)).isneginf().all()


def test_a_member_that_never_ends_cannot_be_begun() -> None:
    endless = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/endless"}}
    schema = {
        "$defs": {"endless": endless},
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/endless"}, "b": {"type": "null"}},
        "additionalProperties": False,
    }
    session = after(opened(schema), b'{"')
    assert ord("a") not in allowed(session)
    assert ord("b") in allowed(session)


def test_a_reply_that_goes_on_with_a_beginning_finishes_the_same_text() -> None:
    schema = {"type": "object", "properties": {"é": {"const": "ab"}}, "required": ["é"]}
    session = opened(schema, before='{"é":"a')
    assert allowed(session) == {ord("b"), LEXICON.texts.index('b"')}


@pytest.mark.parametrize("before", ["Sure! ", '{"x', " "])
def test_a_beginning_that_does_not_fit_is_refused(before: str) -> None:
    schema = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    with pytest.raises(RequestError, match="beginning") as caught:
        opened(schema, before=before)
    assert before.strip(' {"') in {"", "x"} or before not in str(caught.value)
    prompt = Grammar(of_schema(schema), reads_before=False).begin(context(before=before))
    assert ord("{") in allowed(prompt)


# --- sessions are values -------------------------------------------------------------------------

WALKED = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 3}, "b": {"type": "array"}},
}


@given(data=st.data())
def test_an_old_session_says_the_same_whatever_came_of_its_successors(data: st.DataObject) -> None:
    trail = [(opened(WALKED), b"")]
    told = [allowed(trail[0][0])]
    for _ in range(data.draw(st.integers(1, 25))):
        at = data.draw(st.integers(0, len(trail) - 1))
        stray = data.draw(st.booleans())
        options = sorted(set(range(269)) if stray else told[at] - {END, STOP})
        if not options:
            continue
        token = data.draw(st.sampled_from(options))
        session, written = trail[at]
        trail.append((session.advance(token), written + LEXICON.bytes_of(token)))
        told.append(allowed(trail[-1][0]))
    for (session, written), seen in zip(trail, told, strict=True):
        assert allowed(session) == seen
        assert allowed(session.finish()) == seen
        fresh = after(opened(WALKED), written)
        assert allowed(fresh) == seen, "what is allowed depends on the text alone"


@pytest.mark.parametrize("tokens", [tuple(b'{"a":"xy"'), (265, 258, 1, 2)])
def test_sessions_keep_the_laws_of_recipes(tokens: tuple[int, ...]) -> None:
    recipe, rows = Grammar(of_schema(WALKED)), awkward_rows(N_ROW)
    check_adjust(recipe, context(), rows, tokens=tokens)
    check_sessions(recipe, context(), rows[:3], tokens=tokens, other=ord("]"))
    assert (recipe.begin(context()).held, recipe.begin(context()).verdict) == (0, ALLOW)


def test_sessions_may_be_asked_and_advanced_by_several_threads_at_once() -> None:
    start = after(opened({"type": "string"}), b'"')
    want, wrong = allowed(start), list[object]()

    def walk() -> None:
        try:
            for n in range(40):
                session = after(start, b"abcdef"[: n % 6])
                if allowed(session) != want or allowed(start) != want:
                    wrong.append(n)
        except BaseException as exc:  # a thread's own would be lost
            wrong.append(exc)

    threads = [threading.Thread(target=walk) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_kept_of_grammars_is_bounded_and_says_the_same_later() -> None:
    lexicon = byte_lexicon()
    compiler = Compiler.of(lexicon)
    assert Compiler.of(lexicon) is compiler
    for n in range(N_KEPT + 9):
        compiler.matcher(of_schema({"const": n}))
    assert len(compiler._kept) == N_KEPT
    first = compiler.matcher(of_schema({"const": 0}))
    assert first.try_consume_tokens([*b"0"]) == 1
    assert compiler.matcher(of_schema({"const": 0})).try_consume_tokens([*b"0"]) == 1


def test_neither_a_recipe_nor_a_session_shows_what_it_is_made_of() -> None:
    recipe = Grammar(of_schema({"const": "secret"}))
    assert "secret" not in repr(recipe) + repr(recipe.begin(context()))


# --- what is refused -----------------------------------------------------------------------------

ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unsatisfiable_schema", {"enum": []}, ""),
    ("unsatisfiable_schema", {"type": "string", "minLength": 5, "maxLength": 2}, ""),
    ("unsatisfiable_schema", {"type": "integer", "minimum": 5, "maximum": 3}, ""),
    ("unsatisfiable_schema", {"allOf": [{"type": "string"}, {"type": "null"}]}, ""),
    ("unsatisfiable_schema", ENDLESS, ""),
    ("unsatisfiable_schema", {"$ref": "#"}, ""),
    ("unsatisfiable_schema", {"type": "array", "minItems": 1, "items": {"$ref": "#"}}, ""),
    ("unsupported_schema", {"not": {"const": "secret"}}, "'not'"),
    ("unsupported_schema", {"type": "array", "uniqueItems": True}, "'uniqueItems'"),
    ("unsupported_schema", {"if": {}, "then": {}}, "'if', 'then'"),
    ("unsupported_schema", {"type": "string", "pattern": "(?=secret)"}, "'pattern'"),
    ("unsupported_schema", {"type": "string", "pattern": r"\bsecret\b"}, "'pattern'"),
    ("unsupported_schema", {"$ref": "#/$defs/secret"}, "'$ref'"),
    ("unsupported_schema", {"$ref": "http://secret.example/x"}, "'$ref'"),
    ("unsupported_schema", {"oneOf": [{"type": "string"}, {"type": "string"}]}, "'anyOf'"),
    ("unsupported_schema", {"type": "secret"}, ""),
    ("unsupported_schema", {"type": "string", "minLength": "secret"}, ""),
    ("unsupported_schema", {"properties": "secret"}, ""),
    ("unsupported_schema", {"const": "\ud800 secret"}, ""),
    ("schema_too_complex", {"type": "integer", "multipleOf": 999999937}, ""),
    ("schema_too_complex",
     {"allOf": [{"anyOf": [{"properties": {f"secret{n}_{m}": {}}} for m in range(4)]}
                for n in range(10)]}, ""),
    ("schema_too_complex",
     {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{12 + n}}}"} for n in range(8)]}, ""),
    ("schema_too_complex",
     {"type": "object", "properties": {f"secret{n}": {} for n in range(2500)}}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("code", "schema", "named"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_schema_that_cannot_be_written_by_is_refused_by_name_and_not_quoted(
    code: str, schema: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestError) as caught:
        check(of_schema(schema), LEXICON, param="response_format")
    assert caught.value.code == code
    assert caught.value.param in {"response_format", None}, (
        "before it is compiled, no field is known"
    )
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_schema_nested_too_deeply_is_refused_without_its_text() -> None:
    deep: Any = {"const": "secret"}
    for _ in range(300):
        deep = {"type": "array", "items": deep}
    value: Any = "secret"
    for _ in range(3000):
        value = [value]
    nested: list[dict[str, Any]] = [deep, {"default": value}]
    for schema in nested:
        with pytest.raises(RequestError, match="nested") as caught:
            of_schema(schema)
        assert caught.value.code == "schema_too_complex"
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "said",
    [{}, {"lenient": True}, {"whitespace_flexible": True}, {"coerce_one_of": True}],
)
def test_a_schema_cannot_choose_how_it_is_read(said: dict[str, Any]) -> None:
    assert of_schema({"not": {}, "x-guidance": said}) == of_schema({"not": {}})
    with pytest.raises(RequestError, match="'not'"):
        check(of_schema({"not": {}, "x-guidance": said}), LEXICON, param="p")


def test_a_schema_that_can_be_written_by_is_checked_in_silence() -> None:
    for schema, _ in FREE:
        check(of_schema(schema), LEXICON, param="p")


def test_grammars_may_be_lark_or_json_and_no_tokens_are_forced() -> None:
    lark = 'start: "ab" | %json {"const": 12}'
    one = json.dumps({"grammars": [{"json_schema": {"const": "ab"}}]})
    two = json.dumps({"grammars": [{"lark_grammar": "start: @it"}, {"name": "it", "json_schema":
                                    {"enum": ["ab", 1]}}]})  # fmt: skip
    first = Grammar(lark).begin(context())
    assert allowed(first) == {ord("a"), ord("1"), LEXICON.texts.index("12")}
    for source in (one, two):
        assert allowed(Grammar(source).begin(context())) >= {ord('"'), 256}


def test_a_grammar_that_does_not_compile_is_refused_when_a_session_opens_too() -> None:
    with pytest.raises(RequestError) as caught:
        Grammar(of_schema({"not": {"const": "secret"}})).begin(context())
    assert "secret" not in str(caught.value)


def test_a_session_that_has_been_advanced_keeps_no_mask_and_says_the_same_again() -> None:
    first = Grammar(of_schema({"enum": ["ab", "cd"]})).begin(context())
    before = allowed(first)
    second = first.advance(ord('"'))
    assert not first._seen
    assert allowed(second) != before == allowed(first)
