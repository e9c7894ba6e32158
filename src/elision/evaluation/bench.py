"""Run benches, print their figures, and keep the table of this machine up to date."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import orjson
from rich.console import Console
from rich.table import Table

from elision.errors import ConfigError, NotFoundError
from elision.evaluation.figures import Figure, machine

if TYPE_CHECKING:
    from elision.settings import Settings

BENCHES: Mapping[str, str] = {
    "startup": "import time, and that nothing heavy is imported",
    "decode": "the plain loop against transformers.generate",
    "guard": "cost of the phrase mask per token, and of compiling it",
    "eminf": "cost of one gated step of entropy shaping",
    "gateway": "what HTTP adds to the pipeline",
    "gate": "what the gate catches and lets be, and what it costs per request",
    "semantic": "what the semantic layer costs per token, closed and open",
    "detect": "what the check catches and flags, and what it costs",
    "register": "looking up and creating targets, 10,000 of them",
    "speed": "drafted decoding against plain, prompt lookup and the best of generate",
    "batch": "streams at once against one, against batched generate and against taking turns",
    "guidance": "what MTI, CFG, CAD and ULD cost per token, alone and with eight streams",
    "recall": "what searching memory finds, and what it costs",
    "remote": "attacks through servers against the same guard, and the token loop's pace",
    "proxy": "what handing a reply on adds in time and processor, beside LiteLLM's proxy",
    "vllm": "guards inside a real vLLM: cost, parity, attempts to get past, activation",
    "soak": "five hundred streams for a minute: errors and memory",
    "alu": "calls, prompts and time of ALU, and whether discreet replies tell who is registered",
    "store": "writing memory, alone and at once, killed writers, and starting",
    "erase": "copies that are left of what was erased, and what erasing costs",
    "forms": "JSON by schema beside an active guard, and what the grammar costs per token",
    "learning": "what memory brings scripted agents against none, and what entries are proved by",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a bench may use.

    Attributes:
        settings: Cache, model.
        quick: Fewer repeats: each bench ends within 50 s.
        data: Folder with larger data, if the caller has it.
    """

    settings: Settings
    quick: bool = False
    data: Path | None = None
    repeats: Callable[[int, int], int] = field(default=lambda full, quick: full)


class Bench(Protocol):
    """A module of `elision.evaluation.benches`."""

    def measure(self, setup: Setup) -> Iterable[Figure]:
        """Yield figures as they are measured."""
        ...


def listing() -> Table:
    """Return the benches as a table."""
    table = Table("bench", "what it measures")
    for name, summary in BENCHES.items():
        table.add_row(name, summary)
    return table


def run(
    name: str,
    *,
    settings: Settings,
    quick: bool = False,
    data: Path | None = None,
    as_json: bool = False,
) -> list[Figure]:
    """Run the bench called *name*, or ``all``, printing each figure when it is there.

    Raises:
        NotFoundError: If there is no such bench.
    """
    names = list(BENCHES) if name == "all" else [name]
    if unknown := [n for n in names if n not in BENCHES]:
        raise NotFoundError(
            f"there is no bench {unknown[0]!r}; there are: all, {', '.join(BENCHES)}"
        )
    setup = Setup(settings=settings, quick=quick, data=data, repeats=_few if quick else _many)
    figures: list[Figure] = []
    for figure in _measured(names, setup):
        figures.append(figure)
        _show(figure, as_json=as_json)
    return figures


def _many(full: int, quick: int) -> int:
    return full


def _few(full: int, quick: int) -> int:
    return quick


def _measured(names: list[str], setup: Setup) -> Iterator[Figure]:
    for name in names:
        bench = cast("Bench", import_module(f"elision.evaluation.benches.{name}"))
        yield from bench.measure(setup)


def _show(figure: Figure, *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(figure.to_json()).decode(), flush=True)
        return
    verdict = (
        "" if figure.goal is None else ("[red]misses[/]" if figure.missed else "[green]meets[/]")
    )
    goal = f" {verdict} {figure.goal}" if figure.goal else ""
    spread = f" ({figure.spread[0]:g} to {figure.spread[1]:g})" if figure.spread else ""
    Console().print(f"{figure.figure:32} {figure.value:g} {figure.unit}{spread}{goal}")


# --- the table in docs/benchmarks.md -------------------------------------------------------------

_HEAD = """| figure | measured | goal | spread | conditions | date |
|---|---|---|---|---|---|"""
_ROW = re.compile(r"^\| `([^`]+)` \|.*\|$", re.MULTILINE)


def write_table(file: Path, figures: Iterable[Figure]) -> None:
    """Rewrite this machine's table in *file*; everything outside its markers stays.

    Rows of figures that were not measured this time stay as well, each with its date.

    Raises:
        ConfigError: If *file* does not exist.
    """
    if not file.exists():
        raise ConfigError(f"{file} does not exist; it holds the explanations around the tables")
    name = str(machine()["cpu"])
    begin, end = f"<!-- machine: {name} -->", f"<!-- /machine: {name} -->"
    text = file.read_text()
    found = re.search(re.escape(begin) + ".*?" + re.escape(end), text, re.DOTALL)
    rows = {row[1]: row[0] for row in _ROW.finditer(found[0])} if found else {}
    rows |= {figure.figure: _row(figure) for figure in figures}
    here = machine()
    title = f"### {name}, {here['cores']} cores, Python {here['python']}"
    block = "\n".join([begin, title, "", _HEAD, *rows.values(), end])
    text = text.replace(found[0], block) if found else f"{text.rstrip()}\n\n{block}\n"
    file.write_text(text)


def _row(figure: Figure) -> str:
    verdict = "**missed**" if figure.missed else "met"
    goal = "reported" if figure.goal is None else f"{figure.goal} {verdict}"
    spread = f"{figure.spread[0]:g} to {figure.spread[1]:g}" if figure.spread else ""
    conditions = ", ".join(f"{key} {value}" for key, value in figure.conditions.items())
    measured = f"{figure.value:g} {figure.unit}"
    cells = [f"`{figure.figure}`", measured, goal, spread, conditions, str(machine()["date"])]
    return f"| {' | '.join(cells)} |"
