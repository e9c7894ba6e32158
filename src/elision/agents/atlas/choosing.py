"""How an episode comes to its lane: what the past says, what a model guesses, and a coin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from elision.agents.atlas import prompts
from elision.agents.atlas.config import AtlasConfig
from elision.agents.atlas.experience import Experience
from elision.agents.atlas.lanes import Decision, Lane, Probed, Row
from elision.agents.atlas.ledger import spent_on
from elision.agents.atlas.purse import Purse
from elision.agents.atlas.remembering import Recalled
from elision.agents.atlas.router import Router
from elision.agents.atlas.task import Facts, Task
from elision.agents.speaking import Speaker, ask
from elision.memory.learning.evidence import draw
from elision.memory.records import Scope

_RISKY: Final = frozenset({"high", "critical"})


class _Guess(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    mode: Lane
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


async def probe(
    speaker: Speaker, task: Task, past: Sequence[Row], config: AtlasConfig, purse: Purse
) -> Probed | None:
    """Return what *speaker* guesses; None if it breaks, is late, or says nothing of use.

    Args:
        speaker: The model.
        task: What is asked.
        past: Similar episodes, the most similar first; few of them are told.
        config: How it is asked.
        purse: What it spends.
    """
    turn = ask(
        speaker,
        prompts.for_probe(task, past[: config.router.probe_rows]),
        _Guess,
        spend=lambda said: purse.rows.append(spent_on("probe", speaker.name, said)),
        max_tokens=purse.left.reply(config.probe.max_tokens),
        temperature=config.probe.temperature,
        again=lambda: purse.left.open,
    )
    guess, _ = await purse.spared("probe", turn, config.probe.timeout_s)
    return None if guess is None else Probed(guess.mode, guess.confidence)


class Chooser:
    """Chooses lanes; lives with the agent.

    Args:
        config: Thresholds, forced lane, probe.
        scope: Whose past.
        experience: What episodes cost, lane by lane.
        speaker: The probe; None asks nobody.
    """

    def __init__(
        self, config: AtlasConfig, scope: Scope, experience: Experience, speaker: Speaker | None
    ) -> None:
        self._config = config
        self._scope = scope
        self._experience = experience
        self._speaker = speaker
        self._router = Router(config.router)

    async def choose(
        self, task: Task, facts: Facts, recalled: Recalled | None, purse: Purse
    ) -> Decision:
        """Return the lane for *task*.

        Args:
            task: What is asked.
            facts: What triage told.
            recalled: What memory says; None where learning is off.
            purse: What the probe spends.
        """
        past = recalled.past if recalled else ()
        forced = self._config.forced_lane
        asked = self._speaker is not None and forced is None and purse.left.open
        probed = None
        if asked and self._speaker is not None:
            probed = await probe(self._speaker, task, past, self._config, purse)
        return self._router.choose(
            past,
            forced=forced,
            tags=task.tags,
            noise=self._noise(facts, recalled),
            probed=probed,
            probe="off" if not asked else "used" if probed else "failed",
            costs=self._experience.costs(self._scope) if recalled else None,
        )

    def _noise(self, facts: Facts, recalled: Recalled | None) -> float | None:
        """Return the coin for exploring, as a number below or above its probability."""
        if recalled is None or self._config.learning != "on" or facts.get("risk") in _RISKY:
            return None
        share = self._config.router.explore
        chosen = draw(self._config.advice.seed, recalled.episode, "lane", share)
        return 0.0 if chosen else 1.0
