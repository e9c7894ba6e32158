"""Blocked is exactly what would complete a phrase: parity with trying every token."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elision.contract import Lexicon
from elision.guards.phrases.normal import SEP, aligned
from elision.guards.phrases.pattern_set import PatternSet
from elision.guards.phrases.patterns import Owner, Pattern, patterns
from elision.guards.phrases.product import Product
from elision.guards.phrases.recent import Recent
from elision.guards.phrases.vocabulary import Vocabulary
from elision.guards.targets import Phrase
from elision.lexicon import TokenizerLexicon
from elision.testing.tokenizers import byte_lexicon


def phrase_set(*phrases: Phrase) -> PatternSet:
    return PatternSet((Owner("t", n, "restrict", p.allow_echo), p) for n, p in enumerate(phrases))


def cuts(text: str, before: int) -> Iterator[tuple[str, int]]:
    """Yield *text* once for every choice of the capitals that begin a word inside a word.

    The second of each pair is where its first *before* characters end then.
    """
    places = [found.start() for found in re.finditer("(?<=[a-zé])(?=[A-Z])", text)]
    for n in range(len(places) + 1):
        for chosen in combinations(places, n):
            ends = [0, *chosen, len(text)]
            parts = [text[start:end] for start, end in pairwise(ends)]
            yield SEP.join(parts), before + sum(place <= before for place in chosen)


def completes(pattern: Pattern, before: str, after: str) -> bool:
    """Return whether *after*, which begins with *before*, completes *pattern* behind it."""
    if pattern.form == "N":
        return completes_as_read(pattern, len(before), after)
    return any(completes_as_read(pattern, at, text) for text, at in cuts(after, len(before)))


def completes_as_read(pattern: Pattern, before: int, after: str) -> bool:
    symbols, offsets = aligned(after, bounded=pattern.form != "N")
    if pattern.form != "N" and not symbols.startswith(SEP):
        symbols, offsets = SEP + symbols, [0, *offsets]
    for end in range(len(pattern.text), len(symbols) + 1):
        bounded = not pattern.closed or symbols[end : end + 1] in {"", SEP}
        if bounded and symbols[:end].endswith(pattern.text) and offsets[end - 1] >= before:
            return True
    return False


def tried(
    lexicon: Lexicon, phrases: list[Phrase], before: str, tokens: list[int], excluded: set[int]
) -> set[int]:
    """Return the blocked tokens by writing each of them."""
    pending = b""
    for token in tokens:
        text, pending = lexicon.write(pending, token)
        before += text
    wanted = [p for n, phrase in enumerate(phrases) for p in patterns(phrase, owner=n)]
    return {
        token
        for token in range(len(lexicon))
        for after in [before + lexicon.write(pending, token)[0]]
        if any(completes(p, before, after) for p in wanted if p.owner not in excluded)
    }


texts = st.text("abAé -", min_size=1, max_size=5)
whole_pieces = texts.map(str.encode)
cut_pieces = st.builds(
    lambda text, first, last: text.encode()[first : len(text.encode()) - last],
    st.text("abA é€", min_size=1, max_size=3),
    st.integers(0, 2),
    st.integers(0, 2),
)
lexicons = st.lists(st.one_of(whole_pieces, cut_pieces), min_size=1, max_size=14).map(
    lambda pieces: TokenizerLexicon([b"", *pieces], special=[0])
)
banned = st.lists(
    st.builds(
        Phrase,
        text=st.text("abé -", min_size=1, max_size=12).filter(lambda t: set(t) & set("abé")),
        boundary=st.sampled_from(["auto", "yes", "no"]),
        beta=st.sampled_from([1.0, 1.0, 0.6]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400)
@given(lexicons, banned, texts | st.just(""), st.data())
def test_a_token_is_blocked_if_and_only_if_it_would_complete_a_phrase(
    lexicon: TokenizerLexicon, phrases: list[Phrase], before: str, data: st.DataObject
) -> None:
    tokens = data.draw(st.lists(st.integers(0, len(lexicon)), max_size=5))
    excluded = data.draw(st.sets(st.integers(0, len(phrases) - 1), max_size=1))
    product = Product(phrase_set(*phrases), lexicon)
    reading = product.begin(before)
    for n in range(len(tokens) + 1):
        blocked = product.blocked(reading, frozenset(excluded))
        ids = blocked.ids.tolist()
        assert len(ids) == len(set(ids))
        assert blocked.top == max(ids, default=-1)
        assert set(ids) == tried(lexicon, phrases, before, tokens[:n], excluded)
        if n < len(tokens):
            reading = product.advance(reading, tokens[n])


@settings(max_examples=100)
@given(banned, st.text("abAé€ -", max_size=12))
def test_bytes_as_tokens_are_read_like_the_text_they_write(
    phrases: list[Phrase], text: str
) -> None:
    product = Product(phrase_set(*phrases), byte_lexicon())
    reading = product.begin("")
    for byte in text.encode():
        reading = product.advance(reading, byte)
    assert reading == product.begin(text)


def blocked_pieces(pieces: list[str], text: str, *phrases: Phrase) -> set[str]:
    lexicon = TokenizerLexicon([piece.encode() for piece in pieces])
    product = Product(phrase_set(*phrases), lexicon)
    return {pieces[token] for token in product.blocked(product.begin(text)).ids.tolist()}


def test_every_way_of_writing_the_last_letters_is_blocked() -> None:
    pieces = ["wa", " wa", "WA", "w", "ｗａ", "wá", "w.a!", "wag", "\u200bwa", "awa", "xwa"]
    expected = {"wa", " wa", "WA", "ｗａ", "wá", "w.a!", "wag", "\u200bwa"}
    assert blocked_pieces(pieces, "Hsiao Yun-H", Phrase(text="Hsiao Yun-Hwa")) == expected


def test_a_short_phrase_blocks_whole_words_only() -> None:
    pieces = ["le", "les", "le.", "le s", " le", "l e"]
    assert blocked_pieces(pieces, "a ma", Phrase(text="male")) == {"le", "le.", "le s"}
    assert blocked_pieces(pieces, "a fema", Phrase(text="male")) == set()
    assert blocked_pieces(pieces, "m-a-", Phrase(text="male")) == {"l e"}


def test_a_token_that_holds_a_whole_phrase_is_blocked_everywhere() -> None:
    pieces = [" male", "male", "female", " male,", " males", "x male y"]
    phrase = Phrase(text="male")
    assert blocked_pieces(pieces, "fe", phrase) == {" male", " male,", "x male y"}
    assert blocked_pieces(pieces, "", phrase) == {" male", "male", " male,", "x male y"}


def test_a_byte_that_completes_the_last_letter_is_blocked() -> None:
    e_acute = "é".encode()
    lexicon = TokenizerLexicon([b"caf", e_acute[:1], e_acute[1:], b"\xa8", b"e"])
    product = Product(phrase_set(Phrase(text="café", boundary="no")), lexicon)
    reading = product.advance(product.begin("caf"), 1)
    # U+00E8 is an accented e too; before a plain e the byte becomes U+FFFD, which N leaves out.
    assert set(product.blocked(reading).ids.tolist()) == {2, 3, 4}
    reading = product.advance(product.begin("ca"), 1)
    assert set(product.blocked(reading).ids.tolist()) == set()


def test_bytes_that_break_off_bound_a_word() -> None:
    lexicon = TokenizerLexicon([b"\xe2", b"male", b"\x80", b"\x8bmale", b"ma"])
    product = Product(phrase_set(Phrase(text="male")), lexicon)
    reading = product.advance(product.begin("fe"), 0)
    assert set(product.blocked(reading).ids.tolist()) == {1, 3}
    reading = product.advance(reading, 2)  # now 0x8B would make a zero-width space of them
    assert set(product.blocked(reading).ids.tolist()) == {1}


def test_ids_beyond_the_lexicon_write_nothing() -> None:
    product = Product(phrase_set(Phrase(text="male")), byte_lexicon())
    reading = product.begin("mal")
    assert product.advance(reading, 10_000) == reading
    assert product.advance(reading, -1) == reading


def test_states_with_nothing_to_say_share_one_mask() -> None:
    product = Product(phrase_set(Phrase(text="Hsiao Yun-Hwa")), byte_lexicon())
    masks = [product.blocked(product.begin(text)) for text in ("", "The ", "quick fox", "Hsiao")]
    assert all(mask is masks[0] for mask in masks)


def test_a_vocabulary_is_made_once_per_lexicon_and_goes_with_it() -> None:
    lexicon = byte_lexicon()
    made = weakref.ref(Vocabulary.of(lexicon))
    assert Vocabulary.of(lexicon) is made()
    del lexicon
    gc.collect()
    assert made() is None


@dataclass(slots=True)
class Unnameable:
    """A lexicon that can be neither hashed nor referred to weakly."""

    inner: TokenizerLexicon = field(default_factory=byte_lexicon)

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


def test_any_lexicon_will_do() -> None:
    product = Product(phrase_set(Phrase(text="male")), Unnameable())  # type: ignore[arg-type]
    assert product.blocked(product.begin("mal")).ids.tolist() == [ord("E"), ord("e")]


def test_masks_are_remembered_within_bounds() -> None:
    kept = Recent[int, torch.Tensor](entries=3, limit_bytes=100)
    for n in range(5):
        kept.put(n, torch.tensor([n]), n_bytes=10)
    assert [kept.get(n) is not None for n in range(5)] == [False, False, True, True, True]
    kept.put(9, torch.tensor([9]), n_bytes=95)
    assert kept.get(4) is None
    assert kept.get(9) is not None
    kept.put(9, torch.tensor([9]), n_bytes=5)
    kept.put(8, torch.tensor([8]), n_bytes=90)
    assert kept.get(9) is not None
    kept.put(7, torch.tensor([7]), n_bytes=101)
    assert kept.get(7) is None


def test_echo_exemptions_cannot_grow_the_memory_of_masks() -> None:
    phrases = [Phrase(text=f"phrase number {n}", allow_echo=True) for n in range(40)]
    product = Product(phrase_set(*phrases), byte_lexicon(), entries=8)
    for n in range(40):
        product.blocked(product.begin("phrase number 1"), frozenset({n}))
    assert len(product._masks._kept) == 8


@pytest.mark.parametrize("text", ["secret", "Hsiao"])
def test_what_is_printed_of_a_product_tells_no_phrase(text: str) -> None:
    assert text not in repr(Product(phrase_set(Phrase(text=text)), byte_lexicon()))
