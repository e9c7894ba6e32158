"""Profiles: named compositions of what happens to a request.

A profile never switches a phrase off: the register's phrases hold in every one of them, `plain`
included. It adds to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from elision.contract import Recipe, Request, Sampling
from elision.errors import NotFoundError
from elision.middleware.speculation.base import Mode

if TYPE_CHECKING:
    from elision.guards.baselines.guardrail import Family

FailMode: TypeAlias = Literal["closed", "phrases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named composition.

    Attributes:
        name: As callers write it behind the ``@``.
        summary: One line for people.
        temperature: Used when the caller sends none; None leaves OpenAI's default of 1.
        shaping: ``em-inf`` lowers the entropy of hesitant positions; ``none`` leaves it.
        semantic: Whether prompts are assessed, and answers compared with what must not be said in
            other words where the gate is not closed.
        encoded: Whether phrases are followed in other writings too: rotated, reversed, leet,
            base64, hexadecimal.
        buffered: Whether a reply leaves only once it has been checked whole, with every decoder.
        refuse_above: Cosine to a probe above which a prompt is not answered (CURaTE).
        guardrail: Family of the guardrail prompt that is put before the conversation.
        decoder: How tokens are chosen; see `Plan.decoder`.
        fail_mode: What a gate that fails means: ``closed`` ends the request in an error,
            ``phrases`` goes on with phrases, passages and encodings alone, and says so.
        speculation: Whether tokens are drafted: where it pays, never, or at every step.
        reuse: See `Plan.reuse`.
        guidance: What guides a request that names no other, in the form of its own ``guidance``;
            see `elision.middleware.guidance.guidance_of`.
        agentic: Whether an agent works on the request: it recalls what similar ones taught, is
            supervised as closely as they went, and learns from this one. Its roles speak under
            ``guarded``.
        alu: Whether agents audit and rewrite the reply (ALU): ``off``, ``natural``, or ``even``,
            which also keeps what is registered from showing in words and timing.
        relay: Whether an upstream's answer is handed on as it comes while nothing is registered.
    """

    name: str
    summary: str
    temperature: float | None = None
    shaping: Literal["none", "em-inf"] = "none"
    semantic: bool = True
    encoded: bool = True
    buffered: bool = False
    refuse_above: float | None = None
    guardrail: Family | None = None
    decoder: Literal["sample", "beam"] = "sample"
    fail_mode: FailMode = "closed"
    speculation: Mode = "auto"
    reuse: bool = True
    guidance: Mapping[str, Any] = field(default_factory=dict, hash=False)
    agentic: bool = False
    alu: Literal["off", "natural", "even"] = "off"
    relay: bool = False

    @property
    def assesses(self) -> bool:
        """Whether it asks the gate."""
        return self.semantic or self.refuse_above is not None

    def fill(self, request: Request) -> Request:
        """Return *request* with this profile's defaults where the caller left a choice."""
        temperature = request.sampling.temperature
        if temperature is None:
            temperature = 1.0 if self.temperature is None else self.temperature
        return replace(request, sampling=replace(request.sampling, temperature=temperature))

    def decoding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return how a plan is decoded: the profile's way, unless *options* ask for less or more.

        Args:
            options: The caller's ``elision`` object. ``deterministic`` decodes as if alone on a
                fresh engine: nothing is drafted, shared or reused. A profile that never drafts
                or reuses never does. ``trace`` has it told what happened.
        """
        alone = bool(options.get("deterministic"))
        wanted = self.speculation if self.speculation == "off" else options.get("speculation")
        return {
            "profile": self.name,
            "speculation": "off" if alone else wanted or self.speculation,
            "reuse": self.reuse and not alone,
            "trace": bool(options.get("trace")),
        }

    def recipes(self) -> tuple[Recipe, ...]:
        """Return the recipes it adds to those of the request and the register."""
        if self.shaping == "none":
            return ()
        from elision.middleware.interventions.entropy import EntropyMinimisation

        return (EntropyMinimisation(),)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="plain",
                summary="The model as it is; the register's phrases and passages hold.",
                semantic=False,
                encoded=False,
            ),
            Profile(
                name="passthrough",
                summary="An upstream byte by byte; plain as soon as anything is registered.",
                semantic=False,
                encoded=False,
                relay=True,
            ),
            Profile(name="guarded", summary="The default: every guard, while the reply streams."),
            Profile(
                name="focused",
                summary="Guarded, and hesitant positions sharpened by EM-INF at T = 0.1.",
                temperature=0.1,
                shaping="em-inf",
            ),
            Profile(
                name="reasoning",
                summary="Guarded, and MTI guides the positions at which the model hesitates most.",
                guidance=MappingProxyType({"mti": {"share": 0.08}}),
            ),
            Profile(
                name="buffered",
                summary="Guarded, and no reply leaves before it was checked with every decoder.",
                buffered=True,
            ),
            Profile(
                name="alu",
                summary="Buffered, and agents audit a draft and rewrite what gives a target away.",
                buffered=True,
                alu="natural",
            ),
            Profile(
                name="discreet",
                summary="As alu, and neither words nor time tell what is registered.",
                semantic=False,  # a refused prompt would tell; the agents read for meaning
                speculation="off",
                reuse=False,
                buffered=True,
                alu="even",
            ),
            Profile(
                name="agentic",
                summary="Guarded; ATLAS recalls, supervises and learns from rewards.",
                agentic=True,
            ),
            Profile(
                name="curate",
                summary="Plain, and prompts too near to a probe are refused.",
                semantic=False,
                encoded=False,
                refuse_above=0.80,
            ),
            Profile(
                name="guardrail-prompt",
                summary="Plain, and a system prompt asks the model to keep quiet: the baseline.",
                semantic=False,
                encoded=False,
                guardrail="a",
            ),
            Profile(
                name="guard-paper",
                summary="GUARD as published, by beam search: for reproduction, not for use.",
                semantic=False,
                encoded=False,
                decoder="beam",
            ),
        )
    }
)


def profile_named(name: str) -> Profile:
    """Return the profile called *name*.

    Raises:
        NotFoundError: If there is none; the message lists those there are.
    """
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise NotFoundError(
            f"there is no profile {name[:64]!r}; there are: {known}",
            code="profile_not_found",
            param="model",
        ) from None


def sampling_recipes(sampling: Sampling) -> tuple[Recipe, ...]:
    """Return the recipes that *sampling* asks for; neutral values ask for none.

    Temperature 0 is greedy: the draw takes the best token, so nothing behind the masks matters.
    """
    from elision.middleware.interventions.bias import LogitBias
    from elision.middleware.interventions.penalties import FrequencyPresence, Repetition
    from elision.middleware.interventions.temperature import Temperature
    from elision.middleware.interventions.truncation import MinP, TopK, TopNSigma, TopP

    recipes: list[Recipe] = []
    if sampling.logit_bias:
        recipes.append(LogitBias(bias=sampling.logit_bias))
    if sampling.frequency_penalty or sampling.presence_penalty:
        recipes.append(
            FrequencyPresence(
                frequency=sampling.frequency_penalty, presence=sampling.presence_penalty
            )
        )
    if sampling.repetition_penalty != 1:
        recipes.append(Repetition(penalty=sampling.repetition_penalty))
    if sampling.temperature == 0:
        return tuple(recipes)
    if sampling.temperature not in (None, 1):
        recipes.append(Temperature(value=sampling.temperature))
    if sampling.top_n_sigma:
        recipes.append(TopNSigma(n=sampling.top_n_sigma))
    if sampling.top_k:
        recipes.append(TopK(k=sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:
        recipes.append(TopP(p=sampling.top_p))
    if sampling.min_p:
        recipes.append(MinP(p=sampling.min_p))
    return tuple(recipes)
