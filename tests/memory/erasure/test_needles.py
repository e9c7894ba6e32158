"""What is looked for after an erasure is found wherever it stands, and nothing else is."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.memory.erasure.needles import Needles
from elision.memory.erasure.scan import files_below, scan
from elision.memory.erasure.windows import SHORTEST, WIDTHS, of_text, of_vector, spellings

KEY = b"k" * 32
WINDOWS = st.binary(min_size=SHORTEST, max_size=WIDTHS[-1])


def plainly(needles: list[bytes], data: bytes) -> set[bytes]:
    return {needle for needle in needles if needle in data}


@given(st.lists(WINDOWS, max_size=8, unique=True), st.data())
def test_needles_are_found_exactly_where_a_plain_search_finds_them(
    windows: list[bytes], data: st.DataObject
) -> None:
    parts = st.one_of(st.binary(max_size=40), *([st.sampled_from(windows)] if windows else []))
    hay = b"".join(data.draw(st.lists(parts, max_size=8)))
    for one in windows:  # halves of needles are no needles
        hay += one[: len(one) - 1] if data.draw(st.booleans()) else b""
    found = Needles(KEY, windows).found_in(hay)
    alone = {one for one in windows if Needles(KEY, [one]).found_in(hay)}
    assert len(found) == len(plainly(windows, hay))
    assert alone == plainly(windows, hay)


def test_windows_with_one_beginning_are_told_apart_among_many() -> None:
    chance = random.Random(5)
    windows = [b"The customer of the shop " + bytes(chance.choices(range(97, 123), k=23))
               for _ in range(500)]  # fmt: skip
    needles, there = Needles(KEY, windows), windows[:250]
    found = needles.found_in(b" ".join(there * 3))
    assert len(found) == 250
    assert len(needles.only(found)) == 250
    assert needles.only(found).found_in(there[0])
    assert not needles.only(found).found_in(windows[-1])


@given(st.lists(WINDOWS, max_size=6, unique=True))
def test_packed_needles_find_the_same_and_hold_no_window(windows: list[bytes]) -> None:
    needles = Needles(KEY, windows)
    again = Needles.unpack(KEY, needles.pack())
    hay = b"-".join(windows)
    assert again.found_in(hay) == needles.found_in(hay)
    assert not any(window in needles.pack() for window in windows)
    assert len(Needles(KEY, windows[:3]) + Needles(KEY, windows[1:])) == len(windows)


def test_another_key_makes_needles_of_which_nothing_can_be_told() -> None:
    windows = [b"a window of some bytes", b"another window"]
    assert Needles(b"x" * 32, windows).pack() != Needles(KEY, windows).pack()
    assert not Needles.unpack(b"x" * 32, Needles(KEY, windows).pack()).found_in(windows[0])


def test_no_needles_find_nothing_and_short_data_holds_none() -> None:
    assert Needles(KEY).found_in(b"whatever stands here") == set()
    assert Needles(KEY, [b"12345678"]).found_in(b"1234567") == set()


@given(st.text(min_size=1, max_size=300))
def test_a_text_is_known_by_its_start_middle_and_end_in_every_spelling(text: str) -> None:
    windows = of_text(text)
    for data in spellings(text):
        mine = [window for window in windows if window in data]
        if len(data) < SHORTEST or len(set(data)) < 4:
            assert not any(window == data for window in windows)
        elif len(data) < WIDTHS[0]:
            assert data in mine
    assert {len(window) for window in windows} <= {*range(SHORTEST, WIDTHS[0]), *WIDTHS}


def test_spellings_are_those_in_which_files_hold_texts() -> None:
    text = 'Zoë said "naïve\n"'
    assert spellings(text) >= {
        text.encode(),
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        json.dumps(text).encode()[1:-1],
        json.dumps(text, ensure_ascii=False).encode()[1:-1],
    }


def test_a_window_that_says_nothing_is_not_looked_for() -> None:
    assert of_text("-" * 100) == frozenset()
    assert of_vector(bytes(1536)) == frozenset()


def test_a_sparse_embedding_is_known_by_where_its_numbers_are() -> None:
    row = np.zeros(384, dtype="<f4")
    row[100:124] = np.linspace(0.1, 0.3, 24)
    [window] = [w for w in of_vector(row.tobytes()) if len(w) == WIDTHS[-1]]
    assert window == row[100:124].tobytes()


def test_a_scan_finds_what_lies_across_its_blocks_and_names_no_link_twice(tmp_path: Path) -> None:
    window = b"something that was erased, long enough to be cut"
    block = 1 << 21
    for n, at in enumerate((0, block - 20, block - 1, 2 * block - 95)):
        data = bytearray(2 * block + 200)
        data[at : at + len(window)] = window
        (tmp_path / f"{n}.bin").write_bytes(data)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "link").symlink_to(tmp_path / "0.bin")
    files = files_below(tmp_path, tmp_path / "0.bin", tmp_path / "absent")
    seen = scan([*files, tmp_path / "vanished"], Needles(KEY, [window]))
    assert [path.name for path in files] == ["0.bin", "1.bin", "2.bin", "3.bin"]
    assert (seen.files, seen.unreadable, seen.found) == (4, 0, {0: 4})
    assert seen.bytes == 4 * (2 * block + 200)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    seen = scan([tmp_path], Needles(KEY, [b"12345678"]))  # a folder cannot be read as a file
    assert (seen.files, seen.unreadable) == (0, 1)


@pytest.mark.slow
def test_a_scan_of_30_mb_for_a_thousand_records_takes_seconds(tmp_path: Path) -> None:
    import time

    chance = np.random.default_rng(1)
    rows = [chance.normal(size=384).astype("<f4").tobytes() for _ in range(1000)]
    texts = [f"Record {n} says {chance.integers(10**9)} of {chance.random()}" for n in range(1000)]
    windows = frozenset().union(*map(of_vector, rows), *map(of_text, texts))
    (tmp_path / "big").write_bytes(chance.bytes(30_000_000) + texts[0].encode())
    begun = time.perf_counter()
    seen = scan([tmp_path / "big"], Needles(KEY, windows))
    assert time.perf_counter() - begun < 20
    assert 1 <= len(seen.found) <= 9
