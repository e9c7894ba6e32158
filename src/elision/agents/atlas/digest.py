"""What a judge and a distiller read of an episode: bounded, with secrets masked, fenced as data."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from elision.agents.atlas.gates import Seen
from elision.agents.atlas.injection import plain
from elision.agents.atlas.reward import Reward
from elision.agents.atlas.sensitive import masked
from elision.agents.atlas.student import Attempt
from elision.agents.atlas.task import Facts, Task
from elision.agents.atlas.tools import Action
from elision.memory.records import Trust

MOST_ACTIONS: Final = 40
FIRST_ACTIONS: Final = 10
"""Of those the ones at the beginning; the rest are the last."""
ARGS: Final = 200
OBSERVATION: Final = 300
"""Characters of a preview (atlas_memory.md 2.8)."""
TEXT: Final = 8_000
"""Characters of a task, an answer, a truth."""
_AHEAD: Final = 1_000
"""Characters behind a preview's end that are masked with it: half a key is no key to a pattern."""


@dataclass(frozen=True, slots=True)
class Act:
    """One action, as previews.

    Attributes:
        step: Its place.
        tool: What was called; None where nothing was.
        args: With what, as JSON.
        ok: Whether it did what it should.
        observation: What came back.
    """

    step: int
    tool: str | None
    args: str = field(repr=False)
    ok: bool
    observation: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry that was drawn for the episode.

    Attributes:
        id: Its id.
        line: As it was, or would have been, rendered.
        applied: Whether it was shown, or withheld.
        adopted: Whether an action followed it.
    """

    id: str
    line: str = field(repr=False)
    applied: bool
    adopted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """An episode, for those who judge it and those who learn from it. Made by `digest`.

    Attributes:
        task: What was asked.
        output: The last attempt's answer.
        lane: How closely the student was supervised.
        plan: Its steps.
        actions: At most `MOST_ACTIONS`, the first and the last ones.
        n_actions: How many there were.
        n_attempts: Likewise of attempts.
        guidance: What the teacher said, oldest first.
        truth: The right answer, if it is known.
        reward: What came of it, as far as known.
        shown: Entries of the playbook that were drawn for it.
        tools: Names of the agent's tools.
        tags: What kind of task it was.
        facts: What triage told.
        recent: Earlier tasks of the scope; no model is told of them.
        efficient: Whether it took far fewer tokens than its scope's median.
        trust: The least of the task and of all that tools said.
    """

    task: str = field(repr=False)
    output: str = field(repr=False)
    lane: str = "auto"
    plan: tuple[str, ...] = field(default=(), repr=False)
    actions: tuple[Act, ...] = ()
    n_actions: int = 0
    n_attempts: int = 1
    guidance: tuple[str, ...] = field(default=(), repr=False)
    truth: str | None = field(default=None, repr=False)
    reward: Reward | None = None
    shown: tuple[Shown, ...] = ()
    tools: tuple[str, ...] = ()
    tags: frozenset[str] = field(default=frozenset(), repr=False)
    facts: Facts = field(default_factory=dict, repr=False)
    recent: tuple[Seen, ...] = field(default=(), repr=False)
    efficient: bool = False
    trust: Trust = Trust.USER


def digest(
    task: Task,
    attempts: Sequence[Attempt],
    *,
    lane: str = "auto",
    plan: Iterable[str] = (),
    guidance: Iterable[str] = (),
    truth: str | None = None,
    reward: Reward | None = None,
    shown: Iterable[Shown] = (),
    tools: Iterable[str] = (),
    facts: Facts | None = None,
    recent: Iterable[Seen] = (),
    efficient: bool = False,
) -> Digest:
    """Return what may be read of an episode; see `Digest` for the arguments.

    Every text is masked first and cut then, so that no cut leaves half a secret.

    Args:
        task: What was asked.
        attempts: In order; the actions of all of them count, the last one's answer.
        lane: As in `Digest`, as are all that follow.
        plan: Its steps.
        guidance: What the teacher said.
        truth: The right answer, if it is known.
        reward: What came of it.
        shown: Entries that were drawn for it.
        tools: The agent's.
        facts: What triage told; None: the task's own.
        recent: Earlier tasks of the scope, oldest first.
        efficient: See `Digest`.
    """
    actions = [action for attempt in attempts for action in attempt.actions]
    return Digest(
        task=_cut(task.text, TEXT),
        output=_cut(attempts[-1].output, TEXT) if attempts else "",
        lane=lane,
        plan=tuple(_cut(step, OBSERVATION) for step in plan),
        actions=tuple(
            Act(n, a.tool, _args(a.args), a.ok, _cut(a.observation, OBSERVATION))
            for n, a in _bounded(list(enumerate(actions, 1)))
        ),
        n_actions=len(actions),
        n_attempts=len(attempts),
        guidance=tuple(_cut(said, TEXT // 8) for said in guidance),
        truth=None if truth is None else truth[:TEXT],
        reward=reward,
        shown=tuple(shown),
        tools=tuple(tools),
        tags=task.tags,
        facts=task.facts if facts is None else facts,
        recent=tuple(recent),
        efficient=efficient,
        trust=min((task.trust, *(action.trust for action in actions))),
    )


def told(read: Digest, *, nonce: str | None = None) -> str:
    """Return *read* for a model, as data: lines of JSON between fences that carry a nonce.

    The truth is not among them: it is no data of the candidate's. The nonce is drawn after the
    candidate wrote, so that it cannot close the fence; nor could it otherwise, for runs of angle
    brackets shrink to one.

    Args:
        read: What is told.
        nonce: For tests; None draws one.
    """
    rows = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in _rows(read)]
    return fenced("episode", "\n".join(rows), nonce=nonce)


def fenced(name: str, text: str, *, nonce: str | None = None) -> str:
    """Return *text* as data between fences; see `told`."""
    mark = nonce or secrets.token_hex(8)
    body = plain(text).replace(mark, "")
    return f"<<<{name} {mark}>>>\n{body}\n<<<end of {name} {mark}>>>"


def _rows(read: Digest) -> Iterable[Mapping[str, object]]:
    yield {"task": read.task, "lane": read.lane, "attempts": read.n_attempts}
    if read.plan:
        yield {"plan": read.plan}
    if read.n_actions > len(read.actions):
        yield {"actions_left_out": read.n_actions - len(read.actions)}
    for act in read.actions:
        yield {"step": act.step, "tool": act.tool, "args": act.args, "ok": act.ok,
               "saw": act.observation}  # fmt: skip
    for said in read.guidance:
        yield {"guidance": said}
    yield {"answer": read.output}


def _bounded(actions: list[tuple[int, Action]]) -> list[tuple[int, Action]]:
    if len(actions) <= MOST_ACTIONS:
        return actions
    return actions[:FIRST_ACTIONS] + actions[FIRST_ACTIONS - MOST_ACTIONS :]


def _args(args: Mapping[str, object]) -> str:
    return _cut(json.dumps(dict(args), ensure_ascii=False, default=str, sort_keys=True), ARGS)


def _cut(text: str, most: int) -> str:
    return masked(text[: most + _AHEAD])[:most]
