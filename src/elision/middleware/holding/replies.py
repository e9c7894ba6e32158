"""The guarded reply of an engine that only speaks text."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elision.contract import Delta, Engine, Plan, Usage
from elision.errors import CapabilityError
from elision.middleware.holding.fields import Fields
from elision.middleware.holding.layers import asks_json
from elision.middleware.holding.merging import merged
from elision.middleware.holding.pushing import pushed
from elision.middleware.holding.speaking import Speaking

if TYPE_CHECKING:
    from elision.middleware.holding.layers import Layers
    from elision.middleware.planning import Defence


async def guarded_replies(
    engine: Engine, plan: Plan, defence: Defence, *, refusal: str, is_json: bool = False
) -> AsyncGenerator[Delta, None]:
    """Yield what may leave of *engine*'s reply: nothing that may still become what must not be.

    Every string is guarded: text, tool calls, reasoning, unknown fields, log-probabilities. Where a
    target restricts and the engine continues a beginning, the reply goes back and on otherwise,
    also from where an engine that carries masks had nothing left to write; else the choice ends
    with ``content_filter`` and what was held of it is dropped. Several choices are asked for one by
    one, so that each can be taken back. While nothing is registered the engine's own deltas pass
    untouched.

    Args:
        engine: Who writes.
        plan: What is asked.
        defence: What is enforced.
        refusal: What a refused choice says if nothing of it has left.
        is_json: Whether the text is JSON for certain: then what would be redacted is refused.

    Raises:
        CapabilityError: If the prompt is token ids: no guard could read what the reply continues.
        GuardError: If a guard breaks; nothing more has left then.
        ElisionError: Whatever the engine raises.
    """
    if not defence.rules.guard.n_targets:
        async with aclosing(engine.stream(plan)) as source:
            async for delta in source:
                yield delta
        return
    if not isinstance(plan.request.prompt, str):
        raise CapabilityError("guarded token ids", engine=engine.name, missing="a lexicon")
    layers = replace(
        await defence.layers(plan.request), speaks_json=asks_json(plan.request), is_json=is_json
    )
    plan, n_pushed = pushed(replace(plan, refusal=refusal), engine, defence.rules)
    form = "text" if plan.masks is None else "masked, text"
    reply = _Reply(engine, plan, layers, form=form, n_pushed=n_pushed)
    async with aclosing(reply.deltas()) as source:
        async for delta in source:
            yield delta


class _Reply:
    """All choices of one reply."""

    def __init__(
        self, engine: Engine, plan: Plan, layers: Layers, *, form: str, n_pushed: int
    ) -> None:
        self._engine = engine
        self._layers = layers
        self._form = form
        self._n_pushed = n_pushed
        limit = plan.request.timeout_s
        deadline = None if limit is None else time.monotonic() + limit
        self._choices = [
            Speaking(engine, _alone(plan, n), layers, choice=n, deadline=deadline)
            for n in range(plan.request.n)
        ]

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Yield the choices' deltas as they come, then what they came to."""
        streams = [choice.deltas() for choice in self._choices]
        async with aclosing(merged(streams)) as source:
            async for delta in source:
                yield delta
        fields = Fields(self._layers)
        usage = _total([choice.usage for choice in self._choices])
        usage = replace(usage, extra=fields.clean(usage.extra))
        extra = fields.clean(self._choices[0].extra)
        yield Delta(extra=extra, usage=usage, report=self._report(fields.n_dropped))

    def _report(self, n_dropped: int) -> dict[str, Any]:
        choices = self._choices
        n_rewinds = sum(choice.n_rewinds for choice in choices)
        found: dict[str, Any] = {"engine": self._engine.name, **choices[0].report}
        found |= {
            "guard_form": f"{self._form}, continued" if n_rewinds else self._form,
            "n_refused": sum(choice.was_refused for choice in choices),
            "n_rewinds": n_rewinds,
            "n_pushed": self._n_pushed,
            "upstream_calls": sum(choice.n_calls for choice in choices),
        }
        if any(choice.is_estimated for choice in choices):
            found["usage_estimated"] = True
        counts = {
            "usage_rewound": sum(choice.n_rewound for choice in choices),
            "n_dead_ends": sum(choice.n_dead_ends for choice in choices),
            "n_dropped": n_dropped + sum(choice.n_dropped for choice in choices),
            "n_redacted": sum(choice.n_redacted for choice in choices),
        }
        return found | {key: count for key, count in counts.items() if count}


def _alone(plan: Plan, choice: int) -> Plan:
    """Return what is asked for one choice of several."""
    request = plan.request
    if request.n == 1:
        return plan
    seed = request.sampling.seed
    sampling = replace(request.sampling, seed=None if seed is None else seed + choice)
    return replace(plan, request=replace(request, n=1, sampling=sampling))


def _total(usages: Sequence[Usage]) -> Usage:
    """Return what the choices came to together; their one prompt counts once."""
    return Usage(
        prompt_tokens=max(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=usages[0].cached_tokens,
        extra=_summed([usage.extra for usage in usages]),
    )


def _summed(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mappings of counts as one, what stands under the same name added up."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in several for key in one):
        values = [one[key] for one in several if key in one]
        if all(isinstance(value, Mapping) for value in values):
            found[key] = _summed(values)
        elif all(isinstance(value, int | float) and value is not True for value in values):
            found[key] = sum(values)
        else:
            found[key] = values[0]
    return found
