"""Whose scores are in which rows: what vLLM's runner says of the batch it has just scored.

Read off vLLM 0.32, V1 runner: the one file that knows names inside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import FrameType
from typing import Any, Final, Literal, Protocol, TypeAlias

from elision.errors import EngineError
from elision.middleware.engines.plugin.admission import TESTED, UNTESTED

Purpose: TypeAlias = Literal["sampling", "other", "unknown"]
"""What scores are computed for."""

_PURPOSES: Final[Mapping[str, Purpose]] = {
    "execute_model": "sampling",
    "_get_prompt_logprobs_dict": "other",
    "_dummy_sampler_run": "other",
}
_FRAMES: Final = 8
"""Callers to look through for the runner; it is the next one, but for a decorator."""


def check_version(version: str, *, untested: bool) -> None:
    """Raise unless this was tested with vLLM *version*, or *untested* ones are allowed.

    Raises:
        EngineError: Then the server must not start: its rows could be another's.
    """
    if not untested and not version.startswith(TESTED):
        raise EngineError(
            f"vLLM is {version!r}; drafts were tested with {TESTED}x: set {UNTESTED}=1 to allow it"
        )


class State(Protocol):
    """What the runner knows of a request. `output_token_ids` grows by what is committed."""

    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...  # noqa: D102
    @property
    def output_token_ids(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def sampling_params(self) -> Any: ...  # noqa: D102


class Batch(Protocol):
    """The runner's batch: requests by place, and the drafts that were scored behind each."""

    @property
    def req_ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def spec_token_ids(self) -> Sequence[Sequence[int]]: ...  # noqa: D102


class Runner(Protocol):
    """vLLM's model runner, as far as it is read."""

    model: Any
    max_model_len: int
    effective_drafter_max_model_len: int

    @property
    def requests(self) -> Mapping[str, State]: ...  # noqa: D102
    @property
    def input_batch(self) -> Batch: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Slot:
    """One request's rows: the one behind its last committed token, and one behind each draft.

    Attributes:
        request: Its name in this engine.
        first: Index of its first row.
        drafts: The tokens that were scored behind the committed ones; what the scheduler kept.
        n_padding: Rows behind them from which nothing is ever drawn: the scheduler makes a reply
            that begins, or begins again, as wide as others.
    """

    request: str
    first: int
    drafts: tuple[int, ...] = ()
    n_padding: int = 0

    @property
    def end(self) -> int:
        """One past its last row."""
        return self.first + len(self.drafts) + 1 + self.n_padding


def slots_of(batch: Batch, n_rows: int) -> tuple[Slot, ...]:
    """Return whose the rows are, in order.

    Raises:
        EngineError: If the batch has not as many rows.
    """
    found: list[Slot] = []
    end = 0
    for request, scored in zip(batch.req_ids, batch.spec_token_ids, strict=False):
        drafts = tuple(takewhile(_is_token, scored))
        found.append(Slot(request, end, drafts, len(scored) - len(drafts)))
        end = found[-1].end
    if end != n_rows or len(found) != len(batch.req_ids):
        raise EngineError(f"vLLM scored {n_rows} rows; its batch should have {end}")
    return tuple(found)


def _is_token(draft: int) -> bool:
    return draft >= 0


def purpose_of(caller: FrameType | None) -> Purpose:
    """Return what whoever calls wants scores for: the counts of rows alone would not tell."""
    return _PURPOSES.get(caller.f_code.co_name, "unknown") if caller is not None else "unknown"


def runner_above(frame: FrameType | None, model: object) -> Runner:
    """Return the runner that is loading *model*: one of the callers from *frame* upwards.

    Raises:
        EngineError: If none is found, or it has not what is read later. A server whose runner is
            not known must not start: no guard would act in it.
    """
    for _ in range(_FRAMES):
        if frame is None:
            break
        found = frame.f_locals.get("self")
        if found is not None and vars_of(found, "model") is model:
            return _proved(found)
        frame = frame.f_back
    raise EngineError("vLLM's model runner was not found; this version of vLLM is not known")


def vars_of(found: object, name: str) -> object:
    """Return an attribute of an object itself; None if it has none of that name."""
    return getattr(found, "__dict__", {}).get(name)


def _proved(runner: Any) -> Runner:
    needed = ("requests", "input_batch", "max_model_len", "effective_drafter_max_model_len")
    missing = [name for name in needed if not hasattr(runner, name)]
    batch = getattr(runner, "input_batch", None)
    missing += [name for name in ("req_ids", "spec_token_ids") if not hasattr(batch, name)]
    missing += [name for name in _PURPOSES if not hasattr(runner, name)]
    if missing:
        raise EngineError(f"vLLM's model runner has no {', '.join(missing)}: not a known version")
    known: Runner = runner
    return known


def ask_to_the_end(runner: Runner, n_drafts: int) -> None:
    """Have the runner ask for drafts up to the context's end.

    By itself it stops a few tokens before, for all requests of the batch at once, and drafts zeros,
    because a draft model would not fit. Here no model is run.
    """
    runner.effective_drafter_max_model_len = runner.max_model_len + n_drafts
