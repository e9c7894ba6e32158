from __future__ import annotations

from math import exp, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.errors import ConfigError
from elision.guards.verbatim.bloom import BloomFilter

KEY = b"k" * 32


@given(
    st.lists(st.text(st.characters(codec=None)), max_size=40), st.sampled_from([0.3, 1e-2, 1e-6])
)
def test_what_was_put_in_is_always_found(texts: list[str], error: float) -> None:
    filled = BloomFilter(texts, key=KEY, error=error)
    assert all(text in filled for text in texts)
    assert len(filled) == len(texts)


@pytest.mark.parametrize("error", [0.1, 1e-2, 1e-3])
def test_the_error_rate_is_the_one_asked_for_and_the_one_of_the_theory(error: float) -> None:
    n, tries = 2_000, 20_000
    filled = BloomFilter((f"in {i}" for i in range(n)), key=KEY, error=error)
    theory = (1 - exp(-filled.n_hashes * n / filled.n_bits)) ** filled.n_hashes
    assert theory == pytest.approx(error, rel=0.12)
    found = sum(f"out {i}" in filled for i in range(tries)) / tries
    assert abs(found - theory) < 4 * sqrt(theory * (1 - theory) / tries)


def test_the_error_rate_of_small_filters_is_no_greater() -> None:
    """A sentence gives a filter of a few hundred bits: positions with a stride would meet there."""
    n, error, keys, tries = 20, 1e-4, 400, 200
    filters = [
        BloomFilter((f"in {i}" for i in range(n)), key=bytes([key >> 8, key & 255]), error=error)
        for key in range(keys)
    ]
    found = sum(f"out {i}" in filled for filled in filters for i in range(tries))
    assert found <= 8 + 4 * sqrt(8)  # 8 expected; a stride of 62 bits, mod m, finds over 100


def test_size_is_that_of_the_formula() -> None:
    filled = BloomFilter(map(str, range(1000)), key=KEY, error=1e-6)
    assert filled.n_bits == 28756  # 1000 * 13.8155 / 0.480453
    assert filled.n_hashes == 20
    assert filled.n_bytes == 3595


def test_another_key_finds_nothing() -> None:
    texts = [f"text {i}" for i in range(500)]
    one, two = BloomFilter(texts, key=KEY), BloomFilter(texts, key=b"another")
    assert one._bits != two._bits
    two._keyed = one._keyed  # the bits of one key, asked under the other
    assert not any(text in two for text in texts)


def test_holds_no_text() -> None:
    filled = BloomFilter(["marmalade-4711"], key=KEY)
    assert "marmalade" not in repr(vars(filled))
    assert b"marmalade" not in bytes(filled._bits)


def test_an_empty_filter_holds_nothing() -> None:
    assert "" not in BloomFilter([], key=KEY)


@pytest.mark.parametrize(("key", "error"), [(b"", 0.1), (b"k" * 65, 0.1), (KEY, 0.0), (KEY, 1.0)])
def test_keys_and_rates_out_of_range_are_refused(key: bytes, error: float) -> None:
    with pytest.raises(ConfigError):
        BloomFilter([], key=key, error=error)
