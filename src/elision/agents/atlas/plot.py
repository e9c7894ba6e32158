"""The plot of the adaptive-efficiency report: success, tokens and cost over the episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from elision.agents.atlas.report import Row, Run
from elision.errors import MissingExtraError
from elision.guards.evidence.rates import Rate

WINDOW: Final = 10
"""Episodes over which success and tokens are averaged, the last ones up to each."""
_COLOURS: Final = {"memory": "#1b6ca8", "no memory": "#8a8a8a"}


def plot(
    memory: Sequence[Run], control: Sequence[Run], file: Path, *, window: int = WINDOW
) -> None:
    """Draw what memory brought and cost over the episodes, with the control on the same order.

    Success with Wilson's 95 % band and tokens of all roles, both over the last *window* episodes of
    all runs; the cost summed up, per run (the tokens, where nothing was paid).

    Args:
        memory: The runs with memory.
        control: Those without.
        file: Where to; the suffix says how (``.svg``, ``.png``, ``.pdf``).
        window: Episodes that are averaged.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure  # without pyplot there is no global state, no display
    except ImportError as exc:
        raise MissingExtraError("matplotlib", extra="eval") from exc
    figure: Any = Figure(figsize=(11, 3.4), layout="constrained")
    success, tokens, cost = figure.subplots(1, 3)
    paid = any(row.cost for runs in (memory, control) for run in runs for row in run)
    for name, runs in (("memory", memory), ("no memory", control)):
        _draw_success(success, name, runs, window)
        _draw(tokens, name, means(runs, attrgetter("tokens_total"), window))
        of = attrgetter("cost" if paid else "tokens_total")
        _draw(cost, name, [*accumulate(means(runs, of, 1))])
    _label(success, f"success, last {window} episodes")
    _label(tokens, f"tokens of all roles, last {window} episodes")
    _label(cost, "cost so far" if paid else "tokens so far")
    success.set_ylim(-0.03, 1.03)
    success.legend()
    # The same rows give the same file.
    with mpl.rc_context({"svg.hashsalt": "elision"}):
        dated = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=150, metadata=dated)


def means(runs: Sequence[Run], of: Callable[[Row], float], window: int) -> list[float]:
    """Return, for each episode, the mean of the last *window* ones over all runs."""
    return [fmean(map(of, rows)) for rows in _last(runs, window)]


def rates(runs: Sequence[Run], window: int) -> list[Rate]:
    """Return, for each episode, the success of the last *window* ones over all runs."""
    known = (
        [row.success for row in rows if row.success is not None] for rows in _last(runs, window)
    )
    return [Rate(sum(told), len(told)) for told in known]


def _last(runs: Sequence[Run], window: int) -> list[list[Row]]:
    n = min(map(len, runs), default=0)
    return [[row for run in runs for row in run[max(0, t - window) : t]] for t in range(1, n + 1)]


def _draw_success(axes: Any, name: str, runs: Sequence[Run], window: int) -> None:
    told = rates(runs, window)
    _draw(axes, name, [rate.share if rate.n else float("nan") for rate in told])
    low, high = zip(*(rate.interval for rate in told), strict=True)
    at = range(1, len(told) + 1)
    axes.fill_between(at, low, high, color=_COLOURS[name], alpha=0.15, linewidth=0)


def _draw(axes: Any, name: str, values: Sequence[float]) -> None:
    axes.plot(range(1, len(values) + 1), values, label=name, color=_COLOURS[name])


def _label(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel("episode")
