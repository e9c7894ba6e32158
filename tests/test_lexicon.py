"""What tokens write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import LexiconError
from elision.lexicon import TokenizerLexicon
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

BYTES = TokenizerLexicon([bytes([b]) for b in range(256)])


def written(lexicon: TokenizerLexicon, tokens: list[int]) -> str:
    text, pending = "", b""
    for token in tokens:
        more, pending = lexicon.write(pending, token)
        text += more
    return text + lexicon.finish(pending)


@given(st.text())
def test_a_text_written_byte_by_byte_comes_out_whole(text: str) -> None:
    assert written(BYTES, list(text.encode())) == text


@given(st.binary())
def test_broken_bytes_become_what_python_makes_of_them(data: bytes) -> None:
    assert written(BYTES, list(data)) == data.decode("utf-8", "replace")


@given(st.binary())
def test_writing_token_by_token_equals_the_whole_text(data: bytes) -> None:
    assert written(BYTES, list(data)) == BYTES.text(list(data))


def test_special_tokens_and_unknown_ids_write_nothing() -> None:
    lexicon = TokenizerLexicon([b"a", b"<eos>"], special=[1])
    assert lexicon.write(b"", 1) == ("", b"")
    assert lexicon.write(b"", 99) == ("", b"")
    assert lexicon.write(b"\xc3", 1) == ("", b"\xc3")


def test_only_tokens_with_a_continuation_byte_can_complete_a_character() -> None:
    assert set(BYTES.continuing) == set(range(0x80, 0xC0))
    assert set(BYTES.partial) == set(range(0x80, 0x100))


def test_the_lexicon_of_a_tokenizer_decodes_as_it_does() -> None:
    texts = ["The naïve café — 東京 🙂 costs 12 €.", "tabs\tand\nlines  and  spaces"]
    for tokenizer in (byte_tokenizer(), word_tokenizer(texts * 5, vocab_size=400)):
        lexicon = TokenizerLexicon.of(tokenizer)
        for text in texts:
            assert written(lexicon, tokenizer.encode(text, add_special_tokens=False)) == text


def test_ids_beyond_the_tokenizer_write_nothing() -> None:
    tokenizer = byte_tokenizer()
    lexicon = TokenizerLexicon.of(tokenizer, vocab_size=len(tokenizer) + 5)
    assert len(lexicon) == len(tokenizer) + 5
    assert lexicon.bytes_of(len(tokenizer) + 2) == b""


def test_a_tokenizer_that_decodes_otherwise_is_refused() -> None:
    from tokenizers import decoders

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(LexiconError, match="byte-level BPE and SentencePiece"):
        TokenizerLexicon.of(tokenizer)


def test_a_tokenizer_whose_decoding_does_more_than_join_is_refused() -> None:
    from tokenizers import decoders

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("E", "3")]
    )
    with pytest.raises(LexiconError, match="cannot be guarded"):
        TokenizerLexicon.of(tokenizer)


@pytest.mark.model
def test_the_real_tokenizer_has_seventeen_special_tokens_that_write_nothing(smollm2_dir) -> None:
    from transformers import AutoTokenizer

    lexicon = TokenizerLexicon.of(AutoTokenizer.from_pretrained(smollm2_dir))
    assert len(lexicon) == 49_152
    assert len(lexicon.special) == 17
    assert len(lexicon.continuing) == 74
