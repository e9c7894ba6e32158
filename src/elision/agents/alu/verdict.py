"""What happened to a reply, without a word of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from elision.contract import Usage

Path: TypeAlias = Literal["clean", "cleared", "rewritten", "merged", "fallback"]
Reason: TypeAlias = Literal[
    "", "no_variants", "below_threshold", "critic_invalid", "critic_objects",
    "disclosure", "deadline", "calls", "leak",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AluVerdict:
    """The record of one reply: ids, counts, times and digests; never text, never a name.

    Attributes:
        path: ``clean``: near no target; ``cleared``: near one, and found harmless;
            ``rewritten``, ``merged``: a variant; ``fallback``: see *fallback*.
        mode: As set.
        fallback: What was said instead; empty if nothing was.
        reason: Why.
        calls: By role.
        usage: Tokens, over all roles.
        timings_ms: By stage.
        total_ms: From beginning to end, which is when the first token can leave.
        candidates: Ids of the shortlisted targets, the nearest first.
        channels: What found them, in the same order.
        n_findings: Places that judge and rules objected to; None if no judge was understood.
        leaks: The critic's ratings of the variants, 1 where a rule rated; of a cleared draft, its.
        utilities: Likewise.
        chosen: Index of the chosen variant; None if none was.
        retries: Second tries of the judge.
        faults: Roles that broke, with the error's class.
        prompts: Digest of each role's instructions.
    """

    path: Path
    mode: str = "screened"
    fallback: str = ""
    reason: Reason = ""
    calls: Mapping[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    total_ms: float = 0.0
    candidates: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    n_findings: int | None = 0
    leaks: tuple[int, ...] = ()
    utilities: tuple[int, ...] = ()
    chosen: int | None = None
    retries: int = 0
    faults: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_calls(self) -> int:
        """Calls over all roles."""
        return sum(self.calls.values())

    def to_report(self) -> dict[str, Any]:
        """Return what a caller may see: as `to_record`, without ids."""
        record = self.to_record()
        record["n_candidates"] = len(record.pop("candidates"))
        return record

    def to_record(self) -> dict[str, Any]:
        """Return everything, as the audit log keeps it."""
        record = asdict(self)
        usage = record.pop("usage")
        record["tokens_in"] = usage["prompt_tokens"]
        record["tokens_out"] = usage["completion_tokens"]
        record["timings_ms"] = {stage: round(ms, 3) for stage, ms in self.timings_ms.items()}
        record["total_ms"] = round(self.total_ms, 3)
        record["time_to_first_token_ms"] = record["total_ms"]
        return record
