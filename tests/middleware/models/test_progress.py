"""Progress bars that a person can read, and logs too."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from elision.middleware.models.progress import RichProgress, Silence


def _drawn(*, unit: str = "bytes", fail: bool = False) -> str:
    console = Console(file=io.StringIO(), width=100)
    try:
        with RichProgress(console, unit=unit) as bars:
            bars.advance(1)
            bars.stage("asking")
            bars.stage("loading", 2_000_000)
            bars.advance(1_000_000)
            if fail:
                raise ConnectionError
            bars.advance(1_000_000)
            bars.stage("storing")
    except ConnectionError:
        pass
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_each_finished_stage_leaves_one_line() -> None:
    lines = [line for line in _drawn().splitlines() if line.strip()]
    assert [line.split()[:2] for line in lines] == [
        ["✓", "asking"],
        ["✓", "loading"],
        ["✓", "storing"],
    ]


def test_sizes_stand_only_where_they_are_known() -> None:
    asking, loading, storing = _drawn().strip().splitlines()
    assert "2.0/2.0 MB" in loading
    assert "bytes" not in asking + storing


def test_steps_are_counted_without_units() -> None:
    assert "2000000/2000000" in _drawn(unit="steps")
    assert "MB" not in _drawn(unit="steps")


def test_a_stage_that_failed_is_not_drawn_as_done() -> None:
    *_, loading = _drawn(fail=True).strip().splitlines()
    assert "✓" not in loading
    assert "1.0/2.0 MB" in loading


@pytest.mark.parametrize("total", [None, 0, 5])
def test_silence_takes_anything(total: int | None) -> None:
    quiet = Silence()
    quiet.stage("x", total)
    quiet.advance(3)
