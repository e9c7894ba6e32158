"""What memory holds, as the wire and the command line write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elision.guards.targets import iso

if TYPE_CHECKING:
    from elision.memory.learning.attribution import Effect
    from elision.memory.learning.outcomes import Episode
    from elision.memory.learning.spending import Spent
    from elision.memory.records import Hit, Record


def record_object(record: Record) -> dict[str, Any]:
    """Return a record with every word of it."""
    return {
        "object": "memory.record",
        "id": record.id,
        "namespace": list(record.scope.namespace),
        "key": record.key,
        "kind": record.kind,
        "state": record.state,
        "trust": record.trust.name.lower(),
        "version": record.version,
        "text": record.text,
        "value": dict(record.value),
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
        "expires_at": iso(record.expires_at),
    }


def hit_object(hit: Hit) -> dict[str, Any]:
    """Return a record that was found, and how similar it is."""
    return record_object(hit.record) | {"similarity": hit.similarity}


def effect_object(effect: Effect | None) -> dict[str, Any] | None:
    """Return what showing an entry did to rewards, tokens and costs; None if it is unmeasured."""
    if effect is None:
        return None
    return {
        "n_least": effect.n_least,
        "reward": effect.reward.delta,
        "reward_interval": list(effect.reward.interval),
        "reward_shrunk": effect.belief.mean,
        "p_up": effect.belief.p_up,
        "tokens": None if effect.tokens is None else effect.tokens.delta,
        "cost": None if effect.cost is None else effect.cost.delta,
    }


def episode_object(episode: Episode, spent: tuple[Spent, ...]) -> dict[str, Any]:
    """Return an episode: figures and codes, never the task."""
    return {
        "object": "memory.episode",
        "id": episode.id,
        "namespace": list(episode.scope.namespace),
        "state": episode.state,
        "learning": episode.mode,
        "lane": episode.lane,
        "decision": dict(episode.decision),
        "retried": episode.retried,
        "reward": episode.reward,
        "success": episode.success,
        "rewarded_by": episode.rewarded_by,
        "tokens": episode.tokens,
        "cost": episode.cost,
        "spent": [_spent(row) for row in spent],
        "started_at": iso(episode.started_at),
        "ended_at": iso(episode.ended_at),
    }


def _spent(row: Spent) -> dict[str, Any]:
    return {
        "role": row.role,
        "model": row.model,
        "calls": row.calls,
        "tokens_in": row.tokens_in,
        "tokens_cached": row.tokens_cached,
        "tokens_out": row.tokens_out,
        "cost": row.cost,
        "estimated": row.estimated,
    }
