"""Figures and the table they are kept in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elision.errors import ConfigError, NotFoundError
from elision.evaluation import bench
from elision.evaluation.benches.phrases import made_up
from elision.evaluation.figures import Figure, Goal, of, percentile
from elision.settings import Settings


def figure(name: str, value: float, *, most: float = 10) -> Figure:
    return of(name, [value, value + 1, value + 2], "ms", goal=Goal(value=most, sense="<="), a=1)


def test_a_figure_is_the_median_with_its_spread() -> None:
    measured = figure("x.y", 4)
    assert (measured.value, measured.spread) == (5, (4, 6))
    assert not measured.missed
    assert figure("x.y", 10).missed
    assert Goal(value=1, sense=">=").met_by(1)


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentile(range(100), 0.99) == 99
    assert percentile([3, 1, 2], 0.5) == 2


def test_the_table_is_rewritten_and_what_stands_around_it_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    other = "<!-- machine: other -->\n| `a.b` | 1 ms | |\n<!-- /machine: other -->"
    page.write_text(f"# Words\n\n{other}\n\nmore words\n")

    bench.write_table(page, [figure("a.b", 4), figure("c.d", 20)])
    first = page.read_text()
    assert "| `c.d` | 21 ms | <= 10 **missed** |" in first

    bench.write_table(page, [figure("c.d", 6)])
    second = page.read_text()
    assert "| `a.b` | 5 ms | <= 10 met | 4 to 6 | n 3, a 1 |" in second
    assert "| `c.d` | 7 ms | <= 10 met |" in second
    assert second.count("`c.d`") == 1
    for text in ("# Words", other, "more words"):
        assert text in second


def test_a_page_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        bench.write_table(tmp_path / "none.md", [])


def test_the_startup_bench_prints_one_json_line_per_figure(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run("startup", settings=Settings(home=home), as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["figure"] for line in lines] == ["startup.import_ms", "startup.heavy_packages"]
    assert set(lines[0]) == {"figure", "value", "unit", "goal", "spread", "conditions"}
    assert lines[1]["value"] == 0


def test_an_unknown_bench_is_not_found(home: Path) -> None:
    with pytest.raises(NotFoundError, match="there are: all, startup"):
        bench.run("nonsense", settings=Settings(home=home))


def test_made_up_targets_are_all_different_and_always_the_same() -> None:
    targets = made_up(500)
    assert len({t.phrases[0].text for t in targets}) == 500
    assert targets == made_up(500)
