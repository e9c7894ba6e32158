"""The adaptive-efficiency report as tables for people."""

from __future__ import annotations

from collections.abc import Iterator

from elision.agents.atlas.report import Arm, Interval, Report

_ROWS = (
    "success", "reward", "tokens, all roles", "tokens, student", "share of other roles", "cost",
    "successes per cost",
)  # fmt: skip


def markdown(told: Report) -> str:
    """Return *told* as tables in Markdown, with what is to be read beside them."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: Report) -> Iterator[str]:
    yield "| per episode | memory | no memory | change |"
    yield "|---|---|---|---|"
    changes = (
        _points(told.success_gain), "", _percent(told.tokens_change),
        _percent(told.student_tokens_change), "", _percent(told.cost_change), "",
    )  # fmt: skip
    columns = zip(_ROWS, _cells(told.memory), _cells(told.control), changes, strict=True)
    yield from (f"| {' | '.join(cells)} |" for cells in columns)
    yield ""
    yield "| part | success | no memory | tokens | no memory | cost | no memory |"
    yield "|---|---|---|---|---|---|---|"
    for n, (memory, control) in enumerate(told.windows, 1):
        pairs = (
            (_rate(arm), f"{arm.tokens_total:,.0f}", _number(arm.cost)) for arm in (memory, control)
        )
        cells = (cell for both in zip(*pairs, strict=True) for cell in both)
        yield f"| {n} | {' | '.join(cells)} |"
    yield ""
    yield from _notes(told)


def _cells(arm: Arm) -> tuple[str, ...]:
    return (
        _rate(arm),
        _number(arm.reward),
        f"{arm.tokens_total:,.0f}",
        f"{arm.tokens_student:,.0f}",
        f"{arm.overhead:.1%}",
        _number(arm.cost / arm.n),
        _number(arm.efficiency),
    )


def _notes(told: Report) -> Iterator[str]:
    tasks = told.memory.n // told.n_runs
    yield f"- {told.n_runs} runs of {tasks} tasks, the same order and seeds in both columns."
    yield f"- Intervals: 95 %; of rates Wilson's, of changes by paired bootstrap over {told.unit}s."
    if told.unit == "episode":
        yield "- Episodes of one run learn from each other, so changes have too narrow intervals."
    unknown = told.memory.n + told.control.n - told.memory.n_known - told.control.n_known
    if unknown:
        yield f"- {unknown} episodes have no known outcome and are in no rate."
    further = "none" if told.cost_per_success is None else _number(told.cost_per_success)
    yield f"- Cost of each further success: {further}."
    even = "never" if told.break_even is None else f"from episode {told.break_even} on"
    yield f"- Memory has cost no more than the control: {even}."
    if told.note:
        yield f"- {told.note}"


def _rate(arm: Arm) -> str:
    if arm.success is None:
        return "unknown"
    found = arm.success
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _points(interval: Interval | None) -> str:
    if interval is None:
        return "unknown"
    ends = f"{100 * interval.low:+.1f}, {100 * interval.high:+.1f}"
    return f"{100 * interval.value:+.1f} points [{ends}]"


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.value:+.1%} [{interval.low:+.1%}, {interval.high:+.1%}]"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4g}"
