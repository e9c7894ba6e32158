"""``elision eval reasoning``: one suite under several methods, from the files to the summary."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

import elision
from elision.errors import ConfigError
from elision.evaluation.figures import machine
from elision.evaluation.reasoning.data import READ, Choice, Item, Problem, Suite, items
from elision.evaluation.reasoning.given import look
from elision.evaluation.reasoning.methods import TEMPERATURES, Method, label, methods, waves
from elision.evaluation.reasoning.outcomes import Outcomes, of_choices, of_replies
from elision.evaluation.reasoning.report import Summary
from elision.evaluation.reasoning.writing import Task, Tick, write
from elision.evaluation.tofu.models import digest
from elision.evaluation.tofu.sheet import Sheet, claim
from elision.middleware.engines.local import LocalEngine
from elision.middleware.models.pull import pull
from elision.settings import Settings

SEED_STEP: Final = 100_003
"""Seeds of repeated runs lie this far apart: more than any suite has items."""
N_TUNING: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much of a suite is done.

    Attributes:
        n_items: The first so many items; None takes all, less those kept for tuning.
        methods: By name; None takes all of the suite's. The baseline always comes along.
        seed: Keys every draw.
        n_seeds: How often every sampled reply is drawn anew.
        max_tokens: Most tokens per written reply.
        n_tuning: Items at a written suite's end on which the tuned temperature is chosen; they are
            never tested.
    """

    n_items: int | None = 200
    methods: tuple[str, ...] | None = None
    seed: int = 0
    n_seeds: int = 3
    max_tokens: int = 256
    n_tuning: int = N_TUNING

    def __post_init__(self) -> None:
        for name in ("n_items", "n_seeds", "max_tokens", "n_tuning"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")


def run(
    *,
    suite: Suite,
    data: Path | None = None,
    out: Path | None = None,
    options: Options | None = None,
    settings: Settings | None = None,
    console: Console | None = None,
    engine: LocalEngine | None = None,
) -> Summary:
    """Compare the methods of *suite* on the same items.

    What was found out is kept in *out*, so that a run that was ended goes on where it was, and one
    of few items grows into one of more.

    Args:
        suite: Which.
        data: Folder with the suites' files; ``addition`` needs none.
        out: Where values and tables go; None keeps nothing.
        options: How much is done.
        settings: ``model``, ``cache``, ``dtype`` (``auto`` counts as float32 here), ``threads``.
        console: Shows progress; None is silent.
        engine: Another model, in memory already; it stays open.

    Raises:
        ConfigError: If data, methods or *out* are not as expected.
        PullError: If the model cannot be fetched.
    """
    options, settings = options or Options(), settings or Settings()
    chosen, tuning = _split(suite, items(suite, data), options)
    picked = methods(suite, options.methods)
    with tempfile.TemporaryDirectory(prefix="elision-reasoning-") as scratch, _bar(console) as bar:
        place = out or Path(scratch)
        model = engine or _load(settings)
        try:
            claim(place, _identity(suite, options, settings, engine))
            work = _Work(model, options, Sheet(place / "values.jsonl"), bar)
            if suite in READ:
                outcomes = work.read([i for i in chosen if isinstance(i, Choice)], picked, suite)
            else:
                asked = [i for i in chosen if isinstance(i, Problem)]
                spare = [i for i in tuning if isinstance(i, Problem)]
                outcomes = work.written(asked, spare, picked)
        finally:
            if engine is None:
                asyncio.run(model.aclose())
    summary = Summary(
        suite=suite, methods=picked, outcomes={m.name: outcomes[m.name] for m in picked},
        conditions=_conditions(suite, model, options, len(chosen)),
    )  # fmt: skip
    if out is not None:
        summary.write(out)
    return summary


def _split(
    suite: Suite, found: Sequence[Item], options: Options
) -> tuple[Sequence[Item], Sequence[Item]]:
    """Return the items that are tested, and of a written suite those that are kept for tuning."""
    if suite in READ:
        return found[: options.n_items], ()
    tested, tuning = found[: -options.n_tuning], found[-options.n_tuning :]
    if not tested:
        raise ConfigError(f"the suite has {len(found)} items; {options.n_tuning} are for tuning")
    return tested[: options.n_items], tuning


@dataclass(slots=True)
class _Work:
    """The asking: every method, in an order in which each knows what it needs of the others."""

    engine: LocalEngine
    options: Options
    sheet: Sheet
    progress: Progress | None

    def read(
        self, chosen: Sequence[Choice], picked: Sequence[Method], suite: Suite
    ) -> dict[str, Outcomes]:
        """Read every item's answers: first the methods that copy none, then those that do."""
        found: dict[str, Outcomes] = {}
        for wave in waves(picked):
            shares = {m.name: _share(m, found) for m in wave}
            rows: dict[str, dict[int, Mapping[str, Any]]] = {m.name: {} for m in wave}
            with self._counting(f"{suite}: {', '.join(rows)}"[:60], len(chosen)) as tick:
                for item in chosen:
                    seen = look(self.engine, item, wave, shares, self.sheet, seed=self.options.seed)
                    for name, row in seen.items():
                        rows[name][item.index] = row
                    tick()
            found |= {name: of_choices(chosen, of, suite) for name, of in rows.items()}
        return found

    def written(
        self, chosen: Sequence[Problem], spare: Sequence[Problem], picked: Sequence[Method]
    ) -> dict[str, Outcomes]:
        """Have every problem answered, by each method as often as it has seeds."""
        found: dict[str, Outcomes] = {}
        for method in (method for wave in waves(picked) for method in wave):
            warmth = self._tuned(spare) if method.tuned else method.temperature
            name = f"t-{warmth:g}" if method.tuned else method.name
            found[method.name] = self._replies(
                chosen, method, name, warmth, _share(method, found), title=method.name
            )
            found[method.name].temperature = warmth
        return found

    def _tuned(self, spare: Sequence[Problem]) -> float:
        """Return the temperature of most right answers to *spare*; of equals, the highest."""
        right = {}
        for warmth in TEMPERATURES:
            plain = Method(name="", summary="", temperature=warmth)
            name = f"tuning/t-{warmth:g}"
            found = self._replies(spare, plain, name, warmth, None, n_seeds=1, title=name)
            right[warmth] = sum(found.values["accuracy"].values())
        return max(right, key=lambda warmth: (right[warmth], warmth))

    def _replies(
        self, chosen: Sequence[Problem], method: Method, name: str, warmth: float,
        share: float | None, *, title: str, n_seeds: int | None = None,
    ) -> Outcomes:  # fmt: skip
        n = (n_seeds or self.options.n_seeds) if warmth else 1
        tasks = [
            Task(
                key=f"{label(name, share)}/{nth}/{item.index}", problem=item,
                recipes=method.recipes(item, share=share), temperature=warmth,
                seed=self.options.seed + SEED_STEP * nth + item.index,
            )
            for item in chosen
            for nth in range(n)
        ]  # fmt: skip
        with self._counting(title, len(tasks)) as tick:
            work = write(
                self.engine, tasks, self.sheet, max_tokens=self.options.max_tokens, tick=tick
            )
            replies = asyncio.run(work)
        return of_replies([(task.problem, replies[task.key]) for task in tasks])

    @contextmanager
    def _counting(self, title: str, total: int) -> Iterator[Tick]:
        if self.progress is None:
            yield lambda: None
            return
        bar, task = self.progress, self.progress.add_task(title, total=total)
        yield lambda: bar.advance(task)


def _share(method: Method, found: Mapping[str, Outcomes]) -> float | None:
    """Return the usage that *method* copies; None where it copies none."""
    return None if method.like is None else found[method.like].usage or 0.0


@contextmanager
def _bar(console: Console | None) -> Iterator[Progress | None]:
    if console is None:
        yield None
        return
    with Progress(console=console) as progress:
        yield progress


def _load(settings: Settings) -> LocalEngine:
    from elision.middleware.engines.loading import load_engine

    chosen = settings.model_copy(update={"dtype": _dtype(settings)})
    return load_engine(settings.model, chosen)


def _dtype(settings: Settings) -> str:
    return "float32" if settings.dtype == "auto" else settings.dtype


def _identity(
    suite: Suite, options: Options, settings: Settings, engine: LocalEngine | None
) -> dict[str, Any]:
    """Return what kept values depend on; the numbers of items and of seeds are not among it."""
    weights = digest(pull(settings.model, cache=settings.cache)) if engine is None else engine.name
    return {
        "suite": suite,
        "model": weights,
        "dtype": _dtype(settings),
        "seed": options.seed,
        "max_tokens": options.max_tokens,
        "version": elision.__version__,
    }


def _conditions(
    suite: Suite, engine: LocalEngine, options: Options, n_items: int
) -> dict[str, Any]:
    sampled = {} if suite in READ else {"seeds": options.n_seeds, "max_tokens": options.max_tokens}
    return {"model": engine.name, "items": n_items, "seed": options.seed, **sampled, **machine()}
