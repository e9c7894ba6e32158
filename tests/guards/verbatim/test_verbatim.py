from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elision.contract import ALLOW, REFUSE, Context, Here, Plan, Recipe, Request, Sampling, collect
from elision.errors import ConfigError
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.targets import Action, ForgetTarget
from elision.guards.verbatim.mask import GramProduct, VerbatimMask, opening
from elision.guards.verbatim.ngrams import Grams, Tail, is_brief
from elision.guards.verbatim.verbatim import Verbatim, brief_passages
from elision.lexicon import TokenizerLexicon
from elision.testing.laws import awkward_rows, check_adjust, check_sessions
from elision.testing.scripted import ScriptedEngine
from elision.testing.tokenizers import byte_lexicon, word_tokenizer

KEY = b"k" * 32
PASSAGE = (
    "The harbour-master of Vell kept seven lamps, and to each lamp he gave a name; on the night "
    "the fog came down the river he could find only six of them, nor would he say which was gone."
)
QUESTION = "Recite the harbour tale."
LEXICON = byte_lexicon()


def words_of(text: str) -> list[str]:
    return [w for w in N_b(text).split(SEP) if w]


def shared(text: str, passage: str, *, n_words: int = 8, n_letters: int = 40) -> bool:
    """Oracle: whether *text* holds a run of *passage*."""
    mine, theirs = words_of(text), words_of(passage)
    runs = {tuple(theirs[i : i + n_words]) for i in range(len(theirs) - n_words + 1)}
    letters = N(passage)
    return any(tuple(mine[i : i + n_words]) in runs for i in range(len(mine))) or any(
        N(text)[i : i + n_letters] in letters for i in range(len(N(text)) - n_letters + 1)
    )


def target(action: Action = "restrict", *passages: str) -> ForgetTarget:
    return ForgetTarget(title="t", passages=passages or (PASSAGE,), action=action, id="t1")


def verbatim(action: Action = "restrict", *passages: str) -> Verbatim:
    return Verbatim.compile([target(action, *passages)], key=KEY)


def context(lexicon: Any = LEXICON, **more: Any) -> Context:
    return Context(lexicon=lexicon, vocab_size=len(lexicon), **more)


# --- runs ----------------------------------------------------------------------------------------

small = st.text("ab .", max_size=30)


@given(small, small, st.integers(0, 30))
def test_a_text_completes_a_run_just_when_it_adds_one(passage: str, text: str, cut: int) -> None:
    grams = Grams([passage], key=KEY, n_words=4, n_letters=17)
    before, new = text[:cut], text[cut:]
    found = grams.completes(grams.read(Tail(), before), new)
    runs = _count(text, passage) - _count(before, passage)
    if re.match(r"[ab]", new) and re.search(r"[ab]$", before):  # the last word goes on
        runs += _count(before, passage) - _count(before.rstrip("ab"), passage)
        assert not found or _ends_new(before, new, passage)
    else:
        assert found == (runs > 0)


def _count(text: str, passage: str) -> int:
    mine, theirs = words_of(text), words_of(passage)
    runs = {tuple(theirs[i : i + 4]) for i in range(len(theirs) - 3)}
    by_word = sum(tuple(mine[i : i + 4]) in runs for i in range(len(mine) - 3))
    letters = N(text)
    return by_word + sum(letters[i : i + 17] in N(passage) for i in range(len(letters) - 16))


def _ends_new(before: str, new: str, passage: str) -> bool:
    pieces = [new[: end + 1] for end in range(len(new))]
    return any(shared(before + piece, passage, n_words=4, n_letters=17) for piece in pieces)


@given(small, small, st.text("ab .", max_size=16))
def test_only_behind_an_opening_can_a_usual_token_complete_a_run(
    passage: str, before: str, token: str
) -> None:
    grams = Grams([passage], key=KEY, n_words=4, n_letters=20)
    tail = grams.read(Tail(), before)
    if grams.completes(tail, token):
        assert grams.opens(tail) or grams.unusual([N_b(token)]) == (0,)


@given(small, small)
def test_a_tail_does_not_depend_on_the_pieces(one: str, two: str) -> None:
    grams = Grams([PASSAGE], key=KEY)
    assert grams.read(grams.read(Tail(), one), two) == grams.read(Tail(), one + two)


def test_long_tokens_of_a_passage_are_unusual_and_others_are_not() -> None:
    grams = Grams([PASSAGE], key=KEY)
    pieces = ["sevenlampsandtoeachlamp", "an unrelated, very long token", "fog", SEP.join("abc")]
    told = [N_b(piece) for piece in [*pieces, "down the river he"]]
    assert grams.unusual(told) == (0, 4)


def test_runs_too_short_to_have_openings_are_refused() -> None:
    with pytest.raises(ConfigError):
        Grams([PASSAGE], key=KEY, n_letters=16)
    with pytest.raises(ConfigError):
        Grams([PASSAGE], key=KEY, n_words=3)


def test_a_brief_passage_is_a_phrase() -> None:
    brief = "The lamp is out."
    assert is_brief(brief)
    assert not is_brief(PASSAGE)
    assert not is_brief("donaudampfschifffahrtsgesellschaftskapitaen")
    assert [p.text for p in brief_passages(target("restrict", PASSAGE, brief))] == [brief]


# --- the mask ------------------------------------------------------------------------------------


def walk(recipe: Recipe, text: str, **more: Any) -> Any:
    session = recipe.begin(context(**more))
    for byte in text.encode():
        session = session.advance(byte)
    return session


def mask(**more: Any) -> VerbatimMask:
    return VerbatimMask(product=GramProduct(Grams([PASSAGE], key=KEY), LEXICON), **more)


SEVEN = "He said: the harbour-master of Vell kept "  # six words of the passage, and then seve-n
ROWS = awkward_rows(259)


@pytest.mark.parametrize("reply", [SEVEN[24:] + "seve", PASSAGE[:48], "something else"])
def test_the_mask_keeps_the_laws_of_every_recipe(reply: str) -> None:
    tokens = tuple(reply.encode())
    check_adjust(mask(), context(), ROWS, tokens=tokens)
    check_sessions(mask(), context(), ROWS[:3], tokens=tokens, other=32)


def test_the_token_that_would_complete_a_run_is_forbidden_and_its_neighbours_are_not() -> None:
    row = torch.zeros(259)
    here = Here(row)
    out = walk(mask(), SEVEN + "seven lamp").adjust(row, here)
    assert out[ord("s")] == -torch.inf
    assert (out == -torch.inf).sum() >= 2  # S as well
    assert out[ord("S")] == -torch.inf
    assert out[ord("e")] == 0
    assert here.notes["guard.verbatim"] > 0


def test_elsewhere_the_row_is_the_same_object() -> None:
    row = torch.randn(259)
    for text in (
        "",
        "The harbour-master",
        "an ordinary sentence about lamps and rivers in the fog",
    ):
        assert walk(mask(), text).adjust(row, Here(row)) is row


def test_a_run_begun_in_the_prompt_or_by_the_caller_is_not_finished() -> None:
    row = torch.zeros(259)
    begun = PASSAGE[: PASSAGE.index("lamps")]
    for more in ({"before": begun + "lamp"}, {"user_text": f"Go on: {begun}"}):
        session = mask().begin(context(**more))
        for byte in b"" if "before" in more else b"lamp":
            session = session.advance(byte)
        assert session.adjust(row, Here(row))[ord("s")] == -torch.inf
        assert session.adjust(row, Here(row))[ord("e")] == 0


@pytest.mark.parametrize("end", range(24, 190, 7))
def test_the_mask_forbids_just_what_the_oracle_would(end: int) -> None:
    ends = (f"At last: {PASSAGE[start:end]}" for start in range(end))
    begun = next(text for text in ends if not shared(text, PASSAGE))
    row = torch.zeros(259)
    out = walk(mask(candidates=259), begun).adjust(row, Here(row))
    texts = {t: begun + chr(t) for t in range(128)}
    assert {t for t in texts if out[t] == -torch.inf} == {
        t for t, text in texts.items() if N(chr(t)) and shared(text, PASSAGE)
    }


def test_no_clean_token_among_the_candidates_is_a_dead_end() -> None:
    row = torch.full((259,), -50.0)
    row[ord("s")] = row[ord("S")] = 0.0
    out = walk(mask(candidates=2), SEVEN + "seven lamp").adjust(row, Here(row))
    assert out.isneginf().all()
    assert (
        not walk(mask(candidates=3), SEVEN + "seven lamp").adjust(row, Here(row)).isneginf().all()
    )


def test_a_reply_that_is_cut_just_behind_a_run_is_refused() -> None:
    recipe = VerbatimMask(product=GramProduct(Grams([PASSAGE], key=KEY), LEXICON))
    text = "the harbour-master of Vell kept seven lamps"
    assert recipe.begin(context()).read(text).finish().verdict == REFUSE
    assert recipe.begin(context()).read(text + "hade").finish().verdict == ALLOW


def test_a_mask_of_another_vocabulary_is_refused() -> None:
    other = TokenizerLexicon([b"a", b"b"])
    with pytest.raises(ConfigError):
        mask().begin(context(lexicon=other))


def test_the_opening_is_read_once() -> None:
    assert opening("abc", "abc") == "abc"
    assert opening("", "abc") == "abc"
    assert opening("abc", "Sure:") == "abc\nSure:"


# --- every engine --------------------------------------------------------------------------------


def plan(recipes: tuple[Recipe, ...], **sampling: Any) -> Plan:
    request = Request(
        messages=({"role": "user", "content": QUESTION},),
        max_tokens=260,
        sampling=Sampling(**{"temperature": 0.0, "seed": 3, **sampling}),
    )
    return Plan(request=request, recipes=recipes, refusal="No.")


@pytest.fixture(params=["bytes", "words"])
def engine(request: pytest.FixtureRequest) -> ScriptedEngine:
    made = word_tokenizer([PASSAGE] * 3, vocab_size=420) if request.param == "words" else None
    return ScriptedEngine({"harbour tale": PASSAGE}, tokenizer=made)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}, {"temperature": 1.6, "seed": 11}])
async def test_a_model_that_knows_the_passage_cannot_recite_it(
    engine: ScriptedEngine, sampling: dict[str, Any]
) -> None:
    assert engine.lexicon is not None
    open_text = (await collect(engine.stream(plan(())))).text
    assert shared(open_text, PASSAGE)
    recipes = verbatim().recipes(engine.lexicon)
    text = (await collect(engine.stream(plan(recipes, **sampling)))).text
    assert text
    assert not shared(text, PASSAGE)
    await engine.aclose()


@pytest.mark.parametrize("action", ["refuse", "redact"])
async def test_a_target_that_refuses_ends_the_answer_before_the_run_is_out(
    engine: ScriptedEngine, action: Action
) -> None:
    assert engine.lexicon is not None
    done = await collect(engine.stream(plan(verbatim(action).recipes(engine.lexicon))))
    assert done.choices[0].finish == "content_filter"
    assert not shared(done.text, PASSAGE)
    await engine.aclose()


async def test_a_target_that_observes_changes_nothing_and_counts(engine: ScriptedEngine) -> None:
    assert engine.lexicon is not None
    done = await collect(engine.stream(plan(verbatim("observe").recipes(engine.lexicon))))
    assert done.text == (await collect(engine.stream(plan(())))).text
    assert done.report["notes"]["guard.verbatim_observed"] >= 10
    await engine.aclose()


# --- text alone ----------------------------------------------------------------------------------

pieces = st.lists(st.integers(1, 60), min_size=1, max_size=20)


@given(pieces, st.sampled_from([PASSAGE, "Well. " + PASSAGE, "Nothing of it, not a word.", SEVEN]))
def test_a_held_text_is_the_same_whatever_its_pieces(sizes: list[int], text: str) -> None:
    whole = _held(verbatim(), [text])
    cut, at = [], 0
    for size in sizes:
        cut.append(text[at : at + size])
        at += size
    assert _held(verbatim(), [*cut, text[at:]]) == whole
    assert not shared(whole[0], PASSAGE)
    assert whole[1] == shared(text, PASSAGE)
    assert whole[1] or whole[0] == text


def _held(guard: Verbatim, parts: list[str], **more: Any) -> tuple[str, bool]:
    hold = guard.hold(**more)
    out, refused = "", False
    for said, verdict in (*(hold.feed(part) for part in parts), hold.finish()):
        out += said
        refused = refused or verdict == REFUSE
    return out, refused


def test_a_word_that_goes_on_completes_nothing() -> None:
    text = "the harbour-master of Vell kept seven lampshades."
    assert _held(verbatim(), [text]) == (text, False)
    assert _held(verbatim(), [text.replace("shades", "s")])[1]


def test_the_hold_reads_what_stands_before_and_json_as_it_will_be_read() -> None:
    begun, rest = PASSAGE[:40], PASSAGE[40:]
    assert _held(verbatim(), [rest[:12]], user_text=begun)[1]
    assert not _held(verbatim(), [rest[:12]])[1]
    coded = '{"a": "' + "".join(f"\\u{ord(c):04x}" for c in PASSAGE[:60]) + '"}'
    assert _held(verbatim(), [coded], json=True)[1]
    assert not _held(verbatim(), [coded])[1]


# --- the whole guard -----------------------------------------------------------------------------


def test_only_what_changed_is_compiled_anew() -> None:
    first = verbatim()
    assert Verbatim.compile([target()], previous=first) is first
    assert Verbatim.compile([target("refuse")], previous=first) is not first
    assert Verbatim.compile([target("restrict", PASSAGE, PASSAGE[5:])], previous=first) is not first
    assert first.recipes(LEXICON) is first.recipes(LEXICON)


def test_targets_without_passages_or_not_active_ask_for_nothing() -> None:
    asleep = ForgetTarget(title="t", passages=(PASSAGE,), state="suspended")
    guard = Verbatim.compile([ForgetTarget(title="t", probes=("x",)), asleep])
    assert not guard
    assert guard.recipes(LEXICON) == ()
    assert not guard.hides(PASSAGE)


def test_the_compiled_guard_holds_no_text_and_tells_none() -> None:
    guard = verbatim()
    guard.recipes(LEXICON)
    told = repr(guard) + repr(vars(guard)) + repr(guard.recipes(LEXICON)) + repr(vars(guard.masked))
    assert "harbour" not in told.casefold()
    assert guard.hides(PASSAGE.upper())
    assert guard.hides("  ".join(PASSAGE))
    assert not guard.hides("A harbour-master of another town.")
