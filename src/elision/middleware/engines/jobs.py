"""From a plan to the job that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from elision.errors import RequestError
from elision.middleware.engines.beam_job import BeamJob
from elision.middleware.engines.job import Item, Job
from elision.middleware.engines.scoring import ScoringJob

if TYPE_CHECKING:
    from elision.contract import Plan, Request


def job_for(plan: Plan, deliver: Callable[[Item], None], *, deadline: float) -> Job:
    """Return the job that *plan* asks for: to write a reply, to score a text, or both in turn."""
    if plan.decoder == "beam":
        if _gives_text(plan.request):
            raise RequestError("beam search scores no given text; choose another profile")
        return BeamJob(plan, deliver, deadline)
    kind = ScoringJob if _gives_text(plan.request) else Job
    return kind(plan, deliver, deadline)


def _gives_text(request: Request) -> bool:
    """Return whether a part of the reply is the caller's own text, to be scored."""
    echoed = request.echo and (request.logprobs is not None or request.max_tokens == 0)
    return request.answer is not None or echoed
