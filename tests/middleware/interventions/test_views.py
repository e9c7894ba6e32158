from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from elision.contract import Context, Message, Request, text_of
from elision.errors import ConfigError, RequestError
from elision.middleware.interventions.views import After, LastToken, System, Tokens, View, Without
from elision.testing import byte_lexicon

PASSAGE = "The capital of Freedonia is Sylvania. "
QUESTION = "What is the capital of Freedonia?"
CHAT: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello, you."},
    {"role": "user", "content": PASSAGE + QUESTION, "name": "ann"},
)


class Renderer:
    """Renders a chat as ``role: text`` lines and a raw prompt as it stands, a token per byte."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def prompt_after(self, change: Callable[[Request], Request]) -> tuple[int, ...]:
        request = change(self.request)
        if request.kind == "text":
            assert isinstance(request.prompt, str)
            return self.encode(request.prompt)
        lines = (f"{m['role']}: {text_of(m)}" for m in request.messages)
        return self.encode("\n".join(lines))

    def entropy_exceeded(self, share: float) -> float:
        raise NotImplementedError


def context(request: Request) -> Context:
    reader = Renderer(request)
    own = reader.prompt_after(lambda same: same) if request.prompt != () else ()
    return Context(lexicon=byte_lexicon(), vocab_size=259, prompt_ids=own, reader=reader)


def chat(*messages: Message) -> Context:
    return context(Request(kind="chat", messages=messages))


def raw(prompt: str) -> Context:
    return context(Request(kind="text", prompt=prompt))


def told(view: View, where: Context) -> str:
    return bytes(view.ids(where)).decode()


VIEWS: list[View] = [
    LastToken(),
    Tokens((115, 101)),
    System("secret"),
    Without("secret"),
    After("secret"),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_views_are_values_whose_repr_says_nothing_of_the_prompt(view: View) -> None:
    copy = pickle.loads(pickle.dumps(view))
    assert copy == view
    assert hash(copy) == hash(view)
    assert "secret" not in repr(view)
    assert "115" not in repr(view)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_a_view_leaves_the_request_as_it_was(view: View) -> None:
    where = chat(*CHAT, {"role": "user", "content": "A secret."})
    before = where.prompt_ids
    view.ids(where)
    assert where.reader is not None
    assert where.reader.prompt_after(lambda same: same) == before


# --- by tokens -----------------------------------------------------------------------------------


def test_the_last_token_is_the_prompts() -> None:
    assert told(LastToken(), raw("once upon a time!")) == "!"


def test_a_prompt_without_tokens_has_no_last_one() -> None:
    where = replace(raw("x"), prompt_ids=())
    with pytest.raises(RequestError, match="no last token"):
        LastToken().ids(where)


def test_tokens_are_taken_as_given() -> None:
    assert Tokens((1, 0, 258)).ids(raw("x")) == (1, 0, 258)


@pytest.mark.parametrize("ids", [(), (259,), (1, -1)])
def test_tokens_that_the_model_does_not_have_are_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="vocabulary"):
        Tokens(ids).ids(raw("x"))


@pytest.mark.parametrize("view", [System("a"), Without("a"), After("a")])
def test_a_view_in_words_needs_somebody_who_can_read(view: View) -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        view.ids(replace(raw("a b"), reader=None))


# --- another system message ----------------------------------------------------------------------


def test_another_system_message_takes_the_place_of_the_first() -> None:
    where = chat(*CHAT)
    own = bytes(where.prompt_ids).decode()
    assert told(System("Be rude."), where) == own.replace("Be brief.", "Be rude.")


def test_a_chat_without_a_system_message_gets_one() -> None:
    where = chat({"role": "user", "content": "Hello."})
    assert told(System("Be rude."), where) == "system: Be rude.\nuser: Hello."


@pytest.mark.parametrize("role", ["system", "developer"])
def test_every_system_message_goes_the_developers_too(role: str) -> None:
    where = chat({"role": role, "content": "Be brief."}, *CHAT)
    assert "Be brief." not in told(System("Be rude."), where)


def test_of_a_raw_prompt_the_other_text_takes_the_place() -> None:
    assert told(System("Be rude."), raw("Be brief.")) == "Be rude."


def test_a_prompt_of_tokens_can_be_replaced_as_well() -> None:
    where = context(Request(kind="text", prompt=()))
    assert told(System("Be rude."), where) == "Be rude."


# --- without, after ------------------------------------------------------------------------------


def test_a_passage_is_left_out_wherever_it_stands() -> None:
    assert told(Without(PASSAGE), raw(PASSAGE + QUESTION)) == QUESTION
    said = told(Without(PASSAGE), chat(*CHAT, {"role": "user", "content": f"Again: {PASSAGE}"}))
    assert PASSAGE not in said
    assert said.count(QUESTION) == 1
    assert said.endswith("user: Again: ")


def test_a_passage_in_a_message_of_parts_is_left_out_too() -> None:
    parts = [{"type": "text", "text": PASSAGE}, {"type": "text", "text": QUESTION}]
    assert told(Without(PASSAGE), chat({"role": "user", "content": parts})) == f"user: {QUESTION}"


def test_messages_without_the_passage_stay_the_same_objects() -> None:
    changed = Without(PASSAGE)._change(Request(kind="chat", messages=CHAT))
    assert all(a is b for a, b in zip(changed.messages[:3], CHAT[:3], strict=True))
    assert changed.messages[3] == {**CHAT[3], "content": QUESTION}


@pytest.mark.parametrize("where", [raw(QUESTION), chat(*CHAT[:2])])
def test_a_passage_that_is_not_there_is_refused_not_ignored(where: Context) -> None:
    with pytest.raises(RequestError, match="does not stand in the prompt") as refused:
        Without(PASSAGE).ids(where)
    assert "Freedonia" not in str(refused.value)


def test_a_passage_goes_in_front_of_what_was_said_last() -> None:
    assert told(After(PASSAGE), raw(QUESTION)) == PASSAGE + QUESTION
    said = told(After("Mind this."), chat(*CHAT, {"role": "assistant", "content": "It"}))
    assert f"user: Mind this.\n\n{PASSAGE}{QUESTION}\nassistant: It" in said
    assert said.count("Mind this.") == 1


def test_where_nobody_spoke_a_passage_has_no_place() -> None:
    with pytest.raises(RequestError, match="no message of the user"):
        After(PASSAGE).ids(chat(CHAT[0]))


@pytest.mark.parametrize("view", [Without(PASSAGE), After(PASSAGE)])
def test_in_a_prompt_of_tokens_no_passage_can_be_found(view: View) -> None:
    with pytest.raises(RequestError, match="tokens"):
        view.ids(context(Request(kind="text", prompt=())))


@pytest.mark.parametrize("kind", [Without, After])
def test_an_empty_passage_makes_no_difference_and_is_refused(
    kind: Callable[[str], View],
) -> None:
    with pytest.raises(ConfigError, match="empty"):
        kind("")
