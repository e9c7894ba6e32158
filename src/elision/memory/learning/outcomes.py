"""What is known of one episode, and how rewards from several sources rank."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

import orjson
from sqlalchemy import Row

from elision.errors import RequestError
from elision.memory.drafts import check_code
from elision.memory.learning.exposures import Outcome
from elision.memory.records import Scope

By: TypeAlias = Literal["judge", "arbiter", "human", "checker", "env"]
"""Who gave a reward."""
Ending: TypeAlias = Literal["succeeded", "failed", "aborted", "open"]
"""How an episode ends; ``open``: whether it succeeded, nobody has said."""

RANK: Final[Mapping[str, int]] = {"judge": 0, "arbiter": 1, "human": 2, "checker": 3, "env": 3}
"""A reward takes the place of one of lower rank (atlas_memory.md 2.8), never of an equal one."""
EPISODE: Final = "episode"
"""The kind of the record that holds a task's words."""
RUNNING: Final = "running"
REWARDED: Final = "rewarded"
"""The state of that record once the reward is known: only then it tells anything."""
_MODES: Final = ("on", "frozen", "shadow")
LONGEST_DECISION: Final = 16_384
"""Bytes of what is kept of how a lane was chosen."""
_IN_CODES: Final = (
    "a decision is told in figures and codes, each text 1 to 32 of a-z, 0-9, '_', '.', '-', "
    "beginning with a letter"
)
SUCCESS: Final = 0.5
"""The reward from which an episode counts as a success where nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode as it stands.

    Attributes:
        id: A UUID of version 7: later ones compare greater.
        scope: Where; its namespace is empty if it was erased.
        record: The record with the task's words; None if none were kept, or they were erased.
        state: ``running``, or how it ended.
        mode: ``on``, ``frozen`` or ``shadow``.
        lane: How closely it was supervised.
        decision: How the lane was chosen: figures and codes.
        retried: Whether there was more than one attempt.
        reward: 0 to 1; None: unknown, which is not 0.
        success: Whether it counts as done; None: unknown.
        rewarded_by: Who gave the reward.
        tokens: Over all roles.
        cost: Over all roles.
        started_at: Seconds since 1970.
        ended_at: Likewise; None while it runs, or if its process died.
    """

    id: str
    scope: Scope = field(repr=False)
    record: str | None
    state: str
    mode: str
    lane: str
    decision: Mapping[str, Any] = field(repr=False)
    retried: bool
    reward: float | None
    success: bool | None
    rewarded_by: str | None
    tokens: int
    cost: float
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A past episode as evidence for a new task.

    Attributes:
        episode: Its id.
        similarity: Cosine of the two tasks.
        reward: 0 to 1.
        lane: How closely it was supervised.
        retried: Whether the reward took more than one attempt.
        age_days: Since it began.
    """

    episode: str
    similarity: float
    reward: float
    lane: str
    retried: bool
    age_days: float


def new_id(now: float) -> str:
    """Return the id of a new episode that begins at *now*, in seconds since 1970.

    Source:
        RFC 9562, 5.7: 48 bits of milliseconds, 74 bits of chance.
    """
    moment = int(now * 1000) & (1 << 48) - 1
    chance = secrets.randbits(74)
    high = moment << 16 | 0x7000 | chance >> 62
    return str(UUID(int=high << 64 | 0b10 << 62 | chance & (1 << 62) - 1))


def check_id(episode: str) -> None:
    """Check an episode's id.

    Raises:
        RequestError: If it is no UUID as `new_id` writes one.
    """
    try:
        if str(UUID(episode)) == episode:
            return
    except (ValueError, AttributeError, TypeError):
        pass
    raise RequestError("an episode's id is a UUID in lower case", param="episode")


def first_row(
    episode: str, mode: str, lane: str, decision: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the row of an episode that begins, but for where and when.

    Raises:
        RequestError: If something cannot be kept as it is; see `Episodes.begin`.
    """
    check_id(episode)
    check_code(lane, "lane")
    if mode not in _MODES:
        raise RequestError(f"an episode's mode is one of {', '.join(_MODES)}", param="mode")
    return {
        "id": episode,
        "state": RUNNING,
        "mode": mode,
        "lane": lane,
        "decision": _dumped(decision or {}),
        "retried": False,
        "tokens": 0,
        "cost": 0.0,
    }


def _dumped(decision: Mapping[str, Any]) -> str:
    """Return *decision* as JSON: it stands in clear, so no words of anybody are in it."""
    try:
        told = orjson.dumps(dict(decision))
    except TypeError:
        raise RequestError(_IN_CODES, param="decision") from None
    if len(told) > LONGEST_DECISION:
        raise RequestError(
            f"a decision takes {len(told)} bytes; the most are {LONGEST_DECISION}", param="decision"
        )
    if not all(map(_is_code, _texts(orjson.loads(told)))):
        raise RequestError(_IN_CODES, param="decision")
    return told.decode()


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in JSON, names among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        inner = value if isinstance(value, list) else (*value, *value.values())
        for one in inner:
            yield from _texts(one)


def _is_code(text: str) -> bool:
    try:
        check_code(text, "decision")
    except RequestError:
        return False
    return True


def check_reward(reward: float, by: str) -> None:
    """Check a reward and who gives it.

    Raises:
        RequestError: If it is outside 0 to 1, or nobody's.
    """
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0 <= reward <= 1:
        raise RequestError("a reward is a number from 0 to 1", param="reward")
    if by not in RANK:
        raise RequestError(f"a reward comes from one of {', '.join(get_args(By))}", param="by")


def check_ending(state: str) -> None:
    """Check how an episode ends.

    Raises:
        RequestError: If no episode ends so.
    """
    if state not in get_args(Ending):
        raise RequestError(f"an episode ends {', '.join(get_args(Ending))}", param="state")


def outcome_of(row: Row[Any]) -> Outcome | None:
    """Return what an episode's row adds to the evidence; None while that is unknown.

    Only ``on`` draws, so only there the arms can be compared; and before the end it has not spent
    what it will.
    """
    if row.mode != "on" or row.state == RUNNING or row.reward is None:
        return None
    return Outcome(row.reward, bool(row.success), row.tokens, row.cost)
