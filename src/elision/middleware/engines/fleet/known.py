"""What is known of a vLLM server: what it was seen to do, and how it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a server was seen to do with orders.

    Attributes:
        at: When, in seconds of the monotonic clock.
        acts: Whether masks act, in every form of reply that it has.
        is_raw_logprobs: Whether its log-probabilities tell what masks forbid; True until shown
            not to.
        speculates: Whether it drafts tokens, in whatever way.
        n_drafts: How many at a time, at most.
        drafts: Whether MTI works there.
        requires: Whether it refuses requests without an order.
        version: Of vLLM.
        stop: The token that ends a choice at which nothing acceptable is left; None: the end token.
        why: What is missing, and what to do; empty if nothing is.
    """

    at: float
    acts: bool = False
    is_raw_logprobs: bool = True
    speculates: bool = False
    n_drafts: int = 0
    drafts: bool = False
    requires: bool = False
    version: str = ""
    stop: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaHealth:
    """How a replica is; nothing of what it says.

    Attributes:
        base_url: Which.
        weight: Its share; 0 drains.
        n_open: Requests that it is working on for us.
        is_healthy: Whether it answered when it was last asked.
        is_proved: Whether masks were seen to act there.
        version: Of vLLM, if known.
        why: What keeps guarded requests from it; empty if nothing does.
    """

    base_url: str
    weight: float
    n_open: int
    is_healthy: bool
    is_proved: bool
    version: str
    why: str
