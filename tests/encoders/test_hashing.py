from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.encoders.hashing import HashingEncoder
from elision.encoders.protocol import Encoder
from elision.errors import ConfigError, EngineError

TEXT = st.text(st.characters(codec=None), max_size=60)


def vectors(*texts: str, dim: int = 384) -> np.ndarray:
    return HashingEncoder(dim).embed(texts, tenant="t").result()


@given(st.lists(TEXT, max_size=4), st.sampled_from([1, 7, 384]))
def test_every_text_has_one_unit_vector_and_always_the_same(texts: list[str], dim: int) -> None:
    found = vectors(*texts, dim=dim)
    assert found.shape == (len(texts), dim)
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.array_equal(found, vectors(*texts, dim=dim))


def test_case_spacing_and_marks_make_no_difference() -> None:
    one, other = vectors("a quiet harbour", "  A  Quiet, HARBOUR! ")
    assert one @ other == pytest.approx(1, abs=1e-6)


def test_texts_that_share_words_are_nearer_than_those_that_do_not() -> None:
    query, near, inflected, far = vectors(
        "which host sent the mail", "the host that sent mail", "hosts sending mails", "boil an egg"
    )
    assert query @ near > query @ inflected > query @ far
    assert abs(query @ far) < 0.15


def test_it_is_an_encoder_until_it_is_closed() -> None:
    encoder = HashingEncoder()
    assert isinstance(encoder, Encoder)
    assert encoder.name == "hashing-384"
    encoder.close()
    with pytest.raises(EngineError, match="closed"):
        encoder.embed(["a"], tenant="t").result()


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        HashingEncoder(0)
