"""``elision eval tofu``: ask, score, sample; guard off, guard on, and a model that never knew."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from rich.console import Console
from rich.progress import Progress

import elision
from elision.evaluation.figures import machine
from elision.evaluation.metrics import forget_quality
from elision.evaluation.tofu.data import SUBSETS, UTILITY_SETS, Item, Subset, Tofu
from elision.evaluation.tofu.generate import Tick, answers, likelihoods, samples
from elision.evaluation.tofu.measure import Findings, Metrics, measure, raw_ratios, sameness
from elision.evaluation.tofu.models import digest, model_folder
from elision.evaluation.tofu.report import Summary, figures, mean_seconds
from elision.evaluation.tofu.sheet import Sheet, claim
from elision.middleware.client import Client
from elision.middleware.sdk import load
from elision.settings import Settings

SCORED: Final[tuple[Subset, ...]] = ("forget", *UTILITY_SETS)
QUICK_ROWS: Final = 17
QUICK_FACTS: Final = 6
QUICK_PROMPTS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much of the task is done.

    Attributes:
        quick: Every 24th row, 6 of the small sets, samples of 2 prompts: some ten minutes on two
            cores that do nothing else.
        limit: Most rows per set, evenly spaced; None takes all, or what ``quick`` says.
        prompts: Forget questions that are sampled; None takes 50, or what ``quick`` says.
        n_samples: Samples of each.
        max_tokens: Most tokens per answer.
        ablation: Also measure the guard without the gold answers in the register.
    """

    quick: bool = False
    limit: int | None = None
    prompts: int | None = None
    n_samples: int = 16
    max_tokens: int = 80
    ablation: bool = False

    def rows(self, tofu: Tofu, subset: Subset) -> tuple[Item, ...]:
        """Return the rows of *subset* that are asked."""
        most = (
            (QUICK_ROWS if len(tofu.items[subset]) > 200 else QUICK_FACTS) if self.quick else None
        )
        return tofu.chosen(subset, self.limit if self.limit is not None else most)

    def sampled(self, tofu: Tofu) -> tuple[Item, ...]:
        """Return the forget rows with a registered span that are sampled."""
        rows = [item for item in tofu.items["forget"] if item.index in tofu.registered]
        most = self.prompts if self.prompts is not None else QUICK_PROMPTS if self.quick else 50
        most = min(most, len(rows)) if self.n_samples else 0
        return tuple(rows[:: -(-len(rows) // most)]) if most else ()


class Opener(Protocol):
    """Opens a client for a model's folder."""

    def __call__(self, folder: Path, *, profile: str, home: Path) -> Client:
        """Return the client; its register lies in *home*."""
        ...


def run(
    *,
    model: Path,
    data: Path,
    retain: Path | None = None,
    out: Path | None = None,
    options: Options | None = None,
    settings: Settings | None = None,
    console: Console | None = None,
    opener: Opener | None = None,
) -> Summary:
    """Measure suppression on a model that memorised TOFU.

    One request at a time. What was found out is kept in *out*, so that a run that was ended goes
    on where it was; after a change of the guard give another folder.

    Args:
        model: Folder of the model that knows, or of an adapter (see `model_folder`).
        data: Folder with TOFU's files.
        retain: The model that never knew; without it forget quality is None.
        out: Where answers, values, tables and the plot go; None keeps nothing.
        options: How much is done.
        settings: ``cache``, ``dtype`` (``auto`` counts as float32 here), ``threads``, base model.
        console: Shows progress; None is silent.
        opener: Opens the models; None loads them into this process.

    Raises:
        ConfigError: If data, a model or *out* is not as expected.
        MissingExtraError: If a package of the extra ``eval`` is not installed.
    """
    options, settings = options or Options(), settings or Settings()
    tofu = Tofu.load(data)
    opener = opener or _opener(settings)
    with tempfile.TemporaryDirectory(prefix="elision-tofu-") as scratch:
        place = out or Path(scratch) / "out"
        folders = {"model": model, **({"retain": retain} if retain else {})}
        if opener.__class__ is _Loader:
            folders = {role: model_folder(folder, settings) for role, folder in folders.items()}
        claim(place, _identity(folders, options, settings))
        with _bar(console) as progress:
            work = _Work(tofu, options, place, opener, Path(scratch), progress)
            found = work.suppressed(folders["model"])
            if "retain" in folders:
                found["retain"] = work.retained(folders["retain"])
        summary = _summary(tofu, found, _conditions(options, settings, tofu))
        if out is not None:
            summary.write(out)
    return summary


@dataclass(frozen=True, slots=True)
class _Work:
    """The asking: which system, in which order."""

    tofu: Tofu
    options: Options
    out: Path
    opener: Opener
    scratch: Path
    progress: Progress | None

    def suppressed(self, folder: Path) -> dict[str, Findings]:
        """Ask the model that knows: first with an empty register, then with the targets.

        The likelihoods are taken once: a score tells the model's own beside the guarded ones.
        """
        found: dict[str, Findings] = {}
        with self.opener(folder, profile="guarded", home=self.scratch / "model") as client:
            client.profile = "plain"
            found["unguarded"] = self._ask(client, "unguarded", scored=False)
            client.profile = "guarded"
            ids = self._register(client, answers=True)
            found["guarded"] = self._ask(client, "guarded")
            found["unguarded"].likelihoods = found["guarded"].as_plain().likelihoods
            if self.options.ablation:
                for target in ids:
                    client.revoke(target)
                self._register(client, answers=False)
                found["guarded without answers"] = self._ask(client, "ablation")
        return found

    def retained(self, folder: Path) -> Findings:
        """Ask the model that never knew, unguarded."""
        with self.opener(folder, profile="plain", home=self.scratch / "retain") as client:
            return self._ask(client, "retain")

    def _register(self, client: Client, *, answers: bool) -> list[str]:
        return [client.forget(**target).target.id for target in self.tofu.targets(answers=answers)]

    def _ask(self, client: Client, system: str, *, scored: bool = True) -> Findings:
        found, options = Findings(), self.options
        sheets = {kind: Sheet(self.out / system / f"{kind}.jsonl") for kind in _KINDS}
        for subset in SUBSETS:
            items = options.rows(self.tofu, subset)
            with self._counting(f"{system}: answers, {subset}", len(items)) as tick:
                found.answers[subset] = answers(
                    client, subset, items, sheets["answers"],
                    max_tokens=options.max_tokens, tick=tick,
                )  # fmt: skip
        for subset in SCORED if scored else ():
            items = options.rows(self.tofu, subset)
            with self._counting(f"{system}: likelihoods, {subset}", len(items)) as tick:
                found.likelihoods[subset] = likelihoods(
                    client, subset, items, sheets["likelihoods"], tick=tick
                )
        items = options.sampled(self.tofu)
        with self._counting(f"{system}: samples", len(items)) as tick:
            found.samples = samples(
                client, "forget", items, sheets["samples"],
                n=options.n_samples, max_tokens=options.max_tokens, tick=tick,
            )  # fmt: skip
        return found

    @contextmanager
    def _counting(self, title: str, total: int) -> Iterator[Tick]:
        if self.progress is None:
            yield lambda: None
            return
        bar, task = self.progress, self.progress.add_task(title, total=total)
        yield lambda: bar.advance(task)


_KINDS: Final = ("answers", "likelihoods", "samples")


def _summary(tofu: Tofu, found: Mapping[str, Findings], conditions: Mapping[str, Any]) -> Summary:
    systems: dict[str, Metrics] = {name: measure(tofu, of) for name, of in found.items()}
    for name in systems:
        if name.startswith("guarded"):
            systems[name] |= sameness(tofu, found[name], found["unguarded"])
    beside = raw_ratios(found["retain"]) if "retain" in found else None
    seconds = {name: mean_seconds(of) for name, of in found.items()}
    return Summary(
        conditions=conditions,
        systems=systems,
        quality={name: forget_quality(raw_ratios(of), beside) for name, of in found.items()},
        seconds={name: took for name, took in seconds.items() if took is not None},
        figures=figures(systems),
    )


@contextmanager
def _bar(console: Console | None) -> Iterator[Progress | None]:
    if console is None:
        yield None
        return
    with Progress(console=console) as progress:
        yield progress


@dataclass(frozen=True, slots=True)
class _Loader:
    settings: Settings

    def __call__(self, folder: Path, *, profile: str, home: Path) -> Client:
        return load(
            str(folder), profile=profile, home=home, cache=self.settings.cache,
            dtype=_dtype(self.settings), threads=self.settings.threads,
        )  # fmt: skip


def _opener(settings: Settings) -> Opener:
    return _Loader(settings)


def _dtype(settings: Settings) -> str:
    return "float32" if settings.dtype == "auto" else settings.dtype


def _identity(folders: Mapping[str, Path], options: Options, settings: Settings) -> dict[str, Any]:
    """Return what kept values depend on; the number of rows is not among it."""
    weights = {role: digest(folder) for role, folder in folders.items()}
    return {
        **weights,
        "dtype": _dtype(settings),
        "max_tokens": options.max_tokens,
        "version": elision.__version__,
    }


def _conditions(options: Options, settings: Settings, tofu: Tofu) -> dict[str, Any]:
    rows = "/".join(str(len(options.rows(tofu, subset))) for subset in SUBSETS)
    return {
        "rows": f"{rows} ({', '.join(SUBSETS)})",
        "samples": f"{options.n_samples} of {len(options.sampled(tofu))} prompts at T = 1",
        "max_tokens": options.max_tokens,
        "dtype": _dtype(settings),
        **machine(),
    }
