"""What a scripted vLLM has been given: our plug-in's own code, or less than that.

Admission, rows, masks and recipes are those that run in vLLM; only the engine around them is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

from elision.contract import BranchKey, Capability, Suffix
from elision.errors import RequestError
from elision.middleware.engines.plugin.admission import REQUIRE, SECRET, admit, order_of

if TYPE_CHECKING:
    from torch import Tensor

    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.engines.plugin.orders import Order
    from elision.middleware.engines.plugin.worker import Worker
    from elision.testing.upstream_speech import Adjust, Ask

VLLM_ROUTES: Final = ("/version", "/health", "/metrics")
_FIELDS: Final = (
    "prompt_logprobs", "prompt_logprob_token_ids", "logprob_token_ids", "trace_decode_token_ids",
    "thinking_token_budget", "stop_token_ids",
)  # fmt: skip


class ScriptedPlugin:
    """The plug-in in a scripted vLLM, as well or as badly as it is told to be there.

    Args:
        secret: ``ELISION_VLLM_SECRET``.
        requires: ``ELISION_VLLM_REQUIRE``.
        raw: Whether log-probabilities are the model's own, as vLLM has it by default.
        installed: Whether it is there at all.
        speculates: Whether vLLM drafts tokens in its own way, and so drops the plug-in.
        n_drafts: Tokens that our own proposer drafts at a time; 0: there is none.
        fails: Whether every order is carried out as by a runner that was not tested: rows die.
        version: What ``/version`` says.
        n_prompt_logprobs: Most ``prompt_logprobs``.

    Attributes:
        n_learnt: Masks that it was taught.
        dies_at: Tokens behind which nothing acceptable is left of a guarded reply; None: nowhere.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        requires: bool = False,
        raw: bool = False,
        installed: bool = True,
        speculates: bool = False,
        n_drafts: int = 0,
        fails: bool = False,
        version: str = "0.32.0",
        n_prompt_logprobs: int = 512,
    ) -> None:
        self.secret, self.requires, self.raw = secret, requires, raw
        self.installed, self.speculates, self.n_drafts = installed, speculates, n_drafts
        self.fails, self.version = fails, version
        self.n_prompt_logprobs = n_prompt_logprobs
        self.n_learnt = 0
        self.dies_at: int | None = None
        self._worker: Worker | None = None

    def load(self, model: CausalModel) -> None:
        """Come up beside *model*, nothing learnt: what a start of vLLM does."""
        from elision.middleware.engines.plugin.worker import Worker

        tokenizer = cast("Any", model.tokenizer)
        size = len(model.lexicon)
        unfit = "the runner was not tested" if self.fails else ""
        self._worker = Worker(
            lambda: tokenizer, vocab_size=size, eos=model.eos, secret=self.secret, unfit=unfit
        )

    def forget(self) -> None:
        """Know no masks any more, as after many others were learnt."""
        from elision.middleware.engines.plugin.kept import Kept

        assert self._worker is not None
        self._worker.kept = Kept()

    def taken(self, ask: Ask) -> Ask:
        """Return *ask* with what acts on it.

        Raises:
            RequestError: For what a vLLM that was given this refuses.
        """
        body = ask.body
        if (self.speculates or self.n_drafts) and (ask.bias or body.get("min_p")):
            raise RequestError("not yet supported with speculative decoding", param="logit_bias")
        if (body.get("prompt_logprobs") or 0) > self.n_prompt_logprobs:
            raise RequestError("too many prompt_logprobs", param="prompt_logprobs")
        if not self.installed:
            return ask
        xargs = body.get("vllm_xargs")
        fields = {name: body.get(name) for name in _FIELDS}
        told = SimpleNamespace(**fields, extra_args=xargs, logprobs=ask.n_top)
        admit(told, self._environ())
        order = order_of(xargs, self.secret)
        if order is None or self.speculates:
            return ask
        self.n_learnt += order.learn is not None
        return replace(ask, acting=_Rows(self, order))

    def adjusting(self, order: Order, prompt: tuple[int, ...]) -> Adjust:
        """Return what carries *order* out behind *prompt*."""
        from elision.middleware.engines.plugin.rows import Row
        from elision.middleware.engines.plugin.visits import adjust

        worker = self._worker
        assert worker is not None
        capabilities = Capability.LOGITS
        capabilities |= Capability.BRANCH if self.n_drafts else Capability.NONE
        row = Row.open(order, prompt, worker, capabilities=capabilities)

        def acted(
            scores: Tensor, written: list[int], behind: Callable[[tuple[int, ...]], Tensor]
        ) -> Tensor:
            branch = _branch(behind) if self.n_drafts else None
            visit = row.visit(0, [*written], branch=branch)
            if order.guard and len(written) == self.dies_at:
                visit = replace(visit, is_dead=True)
            return adjust(scores.float().clone()[None], [visit], worker)[0]

        return acted

    def _environ(self) -> dict[str, str]:
        environ = {REQUIRE: "1"} if self.requires else {}
        return environ | ({SECRET: self.secret} if self.secret else {})


class _Rows:
    """One request's order, opened once for each choice."""

    def __init__(self, plugin: ScriptedPlugin, order: Order) -> None:
        self._plugin = plugin
        self._order = order

    def open(self, prompt: tuple[int, ...]) -> Adjust:
        """See `Acting`."""
        return self._plugin.adjusting(self._order, prompt)


def told_by_vllm(path: str, plugin: ScriptedPlugin | None) -> Any:
    """Return what a vLLM says at one of `VLLM_ROUTES`."""
    if path == "/version":
        return {"version": "0.32.0" if plugin is None else plugin.version}
    if path == "/health" or plugin is None:
        return b""
    name = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
    n_drafts = plugin.n_drafts or (2 if plugin.speculates else 0)
    lines = [f'{name}{{engine="0",position="{n}"}} 0.0' for n in range(n_drafts)]
    return "\n".join(["vllm:num_requests_running 0.0", *lines]).encode()


def tokenized(model: CausalModel, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``/tokenize`` says to *body*."""
    tokenizer: Any = model.tokenizer
    if "messages" in body:
        opens = body.get("add_generation_prompt", True)
        text = tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=opens
        )
    else:
        text = body["prompt"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    told = {"count": len(ids), "max_model_len": model.n_context, "tokens": ids}
    names = {"token_strs": tokenizer.convert_ids_to_tokens(ids)}
    return told | (names if body.get("return_token_strs") else {})


def prompt_logprobs(model: CausalModel, ids: Sequence[int], n_top: int) -> list[Any]:
    """Return vLLM's ``prompt_logprobs``: of each place but the first, the likeliest and its own."""
    rows: list[Any] = [None]
    cache = model.new_cache()
    for token, following in pairwise(ids):
        logps = model.score((token,), cache).float().log_softmax(dim=-1)
        best = logps.topk(min(n_top, len(logps))).indices.tolist()
        rows.append({str(one): {"logprob": float(logps[one])} for one in {*best, following}})
    return rows


def _branch(behind: Callable[[tuple[int, ...]], Tensor]) -> Callable[[BranchKey], Tensor]:
    def read(key: BranchKey) -> Tensor:
        assert isinstance(key, Suffix)
        return behind(key.ids)

    return read
