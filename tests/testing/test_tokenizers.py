from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.lexicon import TokenizerLexicon
from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

TEXTS = ["The capital of France is Paris.", "Paris is a city; 東京 is another.", "naïve café 🙂"]
BYTES = byte_tokenizer()
WORDS = word_tokenizer(TEXTS * 3, vocab_size=320)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(
    lambda text: "<|" not in text
)


@given(ANY_TEXT)
def test_byte_tokens_are_the_bytes_themselves(text: str) -> None:
    assert bytes(BYTES.encode(text, add_special_tokens=False)) == text.encode()


@pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte", "word"])
@given(text=ANY_TEXT)
def test_lexicon_and_tokenizer_write_the_same_text(tokenizer, text: str) -> None:
    lexicon = TokenizerLexicon.of(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)

    assert lexicon.text(ids) == text
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_character_beyond_ascii_arrives_as_several_partial_tokens() -> None:
    lexicon = TokenizerLexicon.of(BYTES)
    ids = BYTES.encode("é", add_special_tokens=False)

    assert len(ids) == 2
    assert set(ids) <= set(lexicon.partial)


def test_common_words_become_one_token() -> None:
    assert len(WORDS.encode("Paris", add_special_tokens=False)) < len("Paris")


def test_training_twice_gives_the_same_vocabulary() -> None:
    again = word_tokenizer(TEXTS * 3, vocab_size=320)

    assert again.get_vocab() == WORDS.get_vocab()


@pytest.mark.parametrize("tokenizer", [BYTES, WORDS], ids=["byte", "word"])
def test_specials_end_turns_and_write_nothing(tokenizer) -> None:
    lexicon = TokenizerLexicon.of(tokenizer)

    assert lexicon.special == {
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    }
    assert all(lexicon.bytes_of(token) == b"" for token in lexicon.special)


def test_chat_template_writes_chatml() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = BYTES.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_chat_template_leaves_the_last_turn_open_when_it_is_to_be_continued() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}]
    text = BYTES.apply_chat_template(turns, tokenize=False, continue_final_message=True)

    assert text.endswith("<|im_start|>assistant\nHel")
