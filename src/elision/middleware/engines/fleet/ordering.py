"""A request's order: written for the server that is to carry it out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from elision.contract import Masks, Plan, Recipe, Request, text_of
from elision.errors import CapabilityError, ElisionError, GuardError, RequestError
from elision.middleware.engines.plugin.orders import KEY, SEAL, Order, sealed
from elision.middleware.interventions.mti import MinimalIntervention

if TYPE_CHECKING:
    from elision.middleware.engines.fleet.known import Proof
    from elision.middleware.engines.upstream.probing import Ask

BIASED: Final = 100.0
"""vLLM's largest bias, in nats. The stop token gets it: where the plug-in is gone, and with it what
forbids that token, a choice ends before it has said anything."""

_XARGS: Final = "vllm_xargs"
_SALT: Final = "cache_salt"
_STOPS: Final = "stop_token_ids"
_BYPASSES: Final = (
    "use_beam_search", "prompt_logprobs", "prompt_logprob_token_ids", "logprob_token_ids",
    "logits_processors", "kv_transfer_params", "ec_transfer_params", "trace_decode_token_ids",
    "prompt_embeds", "flat_logprobs", "thinking_token_budget",
)  # fmt: skip
"""Fields by which vLLM skips processors, or shows scores that they have not seen."""
_GRAMMARS: Final = (
    "structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "grammar",
)  # fmt: skip
_BANS: Final = ("allowed_token_ids", "bad_words")

LASTS_S: Final = 600.0
"""Seconds in which an order must reach its server, the difference of their clocks included."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a request needs of the server that takes it.

    Attributes:
        carries: That recipes or masks act there.
        guarded: That masks do.
        logprobs: That log-probabilities do not tell what is forbidden.
        branch: That MTI works.
    """

    carries: bool
    guarded: bool
    logprobs: bool
    branch: bool

    @classmethod
    def of(cls, plan: Plan) -> Need:
        """Return what *plan* needs."""
        guarded = plan.masks is not None
        return cls(
            carries=guarded or bool(plan.recipes),
            guarded=guarded,
            logprobs=guarded and _wants_logprobs(plan.request),
            branch=any(map(reads_branch, plan.recipes)),
        )

    def lacking(self, proof: Proof, *, engine: str) -> ElisionError | None:
        """Return why a server with *proof* cannot take the request; None if it can."""
        if self.carries and not proof.acts:
            return GuardError(
                f"what must act in the vLLM server of {engine!r} was not seen to act there, so it "
                f"is not asked: {proof.why}"
            )
        if self.logprobs and proof.is_raw_logprobs:
            return CapabilityError(
                "logprobs",
                engine=engine,
                missing="log-probabilities behind its masks (start vLLM with --logprobs-mode "
                "processed_logprobs)",
                param="logprobs",
            )
        if self.branch and not proof.drafts:
            return CapabilityError("mti", engine=engine, missing="BRANCH")
        return None


def reads_branch(recipe: Recipe) -> bool:
    """Return whether *recipe* is MTI, and not a neutral one."""
    return isinstance(recipe, MinimalIntervention) and recipe.scale != 1 and recipe.tau != math.inf


def check_fields(
    request: Request, *, stop: int | None = None, is_guarded_draft: bool = False
) -> None:
    """Refuse fields by which a caller would have his request pass by what acts on it.

    Args:
        request: What carries an order.
        stop: The token that ends a choice at which nothing acceptable is left.
        is_guarded_draft: Whether masks hold where tokens are drafted: vLLM's own bans act behind
            them there.

    Raises:
        RequestError: For the first of them; it is named.
    """
    for name in _BYPASSES:
        if not _is_off(request.extra.get(name)):
            raise _refused(name, "it would pass by what must act on this request")
    if request.extra.get("min_tokens") not in (None, 0):
        raise _refused("min_tokens", "a reply could not end where nothing acceptable is left")
    for name in _BANS if is_guarded_draft else ():
        if request.extra.get(name) not in (None, [], ()):
            raise _refused(name, "it acts behind the masks where the server drafts tokens")
    if request.kind == "text" and request.echo and _wants_logprobs(request):
        raise _refused("logprobs", "an echoed prompt's would be told as they were before masks")
    if stop is not None and stop in _ids(request.extra.get(_STOPS)):
        raise _refused(_STOPS, "it holds the token by which we end a choice")


def check_xargs(extra: Mapping[str, Any]) -> None:
    """Refuse what a caller may not say to the plug-in himself.

    Raises:
        RequestError: If ``vllm_xargs`` is no object, or holds a key of ours.
    """
    xargs = extra.get(_XARGS)
    if xargs is None:
        return
    if not isinstance(xargs, Mapping):
        raise _refused(_XARGS, "it must be an object")
    if any(str(name).lower().startswith(KEY) for name in xargs):
        raise _refused(_XARGS, f"its keys that begin with {KEY!r} are ours")


def wire(order: Order, secret: str | None) -> dict[str, str]:
    """Return *order* as entries of ``vllm_xargs``, under its seal if there is a *secret*.

    It holds for `LASTS_S`, from now.
    """
    text = replace(order, until=time.time() + LASTS_S).dumps()
    return {KEY: text} if secret is None else {KEY: text, SEAL: sealed(text, secret)}


def salt_of(tenant: str, own: object, key: bytes) -> str:
    """Return the salt of a prefix cache: no two tenants share one, whatever they ask for.

    Args:
        tenant: Whose request it is.
        own: The caller's ``cache_salt``: who keeps his own requests apart still does.
        key: Of this process.

    Raises:
        RequestError: If *own* is no text.
    """
    if own is not None and not isinstance(own, str):
        raise _refused(_SALT, "it must be text")
    told = blake2b(key=key, digest_size=32, person=b"cache-salt")
    for part in (tenant, own or ""):
        data = part.encode("utf-8", "surrogatepass")
        told.update(len(data).to_bytes(8, "big") + data)
    return told.hexdigest()


def order_of(plan: Plan, recipes: tuple[Recipe, ...], proof: Proof, key: bytes) -> Order:
    """Return what is to be done to *plan*'s scores by a server with *proof*.

    Args:
        plan: Whose masks hold.
        recipes: Its recipes, ready to be carried.
        proof: Of the server.
        key: Keeps what is recycled apart, of this process.
    """
    request = plan.request
    masks = plan.masks
    can_draft = proof.n_drafts > 0 and plan.speculation != "off"
    return Order(
        recipes=recipes,
        guard="" if masks is None else masks.digest,
        before=_before(request),
        user_text=request.user_text if _reads_user(masks) else "",
        stop=proof.stop,
        seed=request.sampling.seed,
        drafts="recycle" if can_draft else "none",
        pool=salt_of(plan.tenant, plan.profile, key) if can_draft else "",
    )


def ordered(
    request: Request, order: Order, *, secret: str | None, takes_bias: bool = False
) -> Request:
    """Return *request* with *order* in it, and with what stands beside an order.

    Args:
        request: As it was asked.
        order: Its stop token, if it has one, ends a choice.
        secret: What orders are sealed with.
        takes_bias: Whether the stop token may have a bias as well. It is without effect while the
            plug-in forbids that token; see `BIASED`.
    """
    own = request.extra.get(_XARGS) or {}
    extra = {**request.extra, _XARGS: {**own, **wire(order, secret)}}
    sampling = request.sampling
    if order.stop is not None:
        extra[_STOPS] = [*_ids(request.extra.get(_STOPS)), order.stop]
        if takes_bias:
            bias = {**sampling.logit_bias, order.stop: BIASED}
            sampling = replace(sampling, logit_bias=bias)
    return replace(request, sampling=sampling, extra=extra)


async def asked_with(
    xargs: Mapping[str, str], ask: Ask, method: str, route: str, body: Mapping[str, Any] | None
) -> Any:
    """Return what *ask* does, *xargs* in what it sends, on vLLM's own route as on OpenAI's."""
    if body is None:
        return await ask(method, route, None)
    if "sampling_params" in body:
        sampling = {**body["sampling_params"], "extra_args": dict(xargs)}
        return await ask(method, route, {**body, "sampling_params": sampling})
    return await ask(method, route, {**body, "vllm_xargs": dict(xargs)})


def salted(request: Request, salt: str) -> Request:
    """Return *request* with the *salt* of its prefix cache."""
    return replace(request, extra={**request.extra, _SALT: salt})


def own_salt(extra: Mapping[str, Any]) -> object:
    """Return the caller's own salt."""
    return extra.get(_SALT)


def _before(request: Request) -> str | None:
    """Return the text that a reply goes on with; None: the prompt, as it stands."""
    if request.kind == "text":
        return None
    return text_of(request.messages[-1]) if request.continue_final and request.messages else ""


def _reads_user(masks: Masks | None) -> bool:
    """Return whether *masks* look at the caller's own words."""
    return masks is not None and getattr(masks, "needs_user_text", True)


def is_shaped(request: Request) -> bool:
    """Return whether a grammar may say what a reply to *request* looks like."""
    extra = request.extra
    form = extra.get("response_format")
    is_free = form is None or (isinstance(form, Mapping) and form.get("type") == "text")
    is_called = extra.get("tool_choice") not in (None, "none", "auto")
    return not is_free or is_called or not all(_is_off(extra.get(name)) for name in _GRAMMARS)


def _is_off(value: object) -> bool:
    """Return whether a field asks for nothing. 0 is something: some of them tell more with it."""
    return value is None or value is False or value in ([], {})


def _wants_logprobs(request: Request) -> bool:
    extra = request.extra
    told = extra.get("logprobs") not in (None, False) or extra.get("top_logprobs") is not None
    return request.logprobs is not None or told


def _ids(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise _refused(_STOPS, "it must be a list of token ids")
    return list(value)


def _refused(field: str, why: str) -> RequestError:
    return RequestError(f"{field} cannot be used here: {why}; leave it out", param=field)
