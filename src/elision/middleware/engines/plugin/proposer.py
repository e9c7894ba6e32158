"""The proposer that vLLM loads: drafts for MTI and Token Recycling, and the whole chain beside it.

``--speculative-config '{"method": "custom_class", "num_speculative_tokens": 4, "model":
"elision.middleware.engines.plugin.proposer.ElisionProposer"}'``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from elision.middleware.engines.plugin.admission import UNTESTED, is_set
from elision.middleware.engines.plugin.hook import Hook
from elision.middleware.engines.plugin.layout import Runner, check_version, runner_above
from elision.middleware.engines.plugin.mending import mend_expansion
from elision.middleware.engines.plugin.recycling import Recycled
from elision.middleware.engines.plugin.seats import Seat, Seats
from elision.middleware.engines.plugin.worker import Worker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ElisionProposer:
    """Drafts what orders ask for, and adjusts scores where vLLM takes no logits processor.

    One request's drafts are either its negative prompt, so that the scores behind it can be read
    (MTI), or what its pool's matrix says follows (Token Recycling): MTI wins. Neither changes what
    is said: a draft that the adjusted scores would not have chosen is rejected.

    The server does not start under a version of vLLM that this was not tested with, unless
    ``ELISION_VLLM_UNTESTED=1``, nor under a runner that it does not know.

    MTI guides every position but a reply's first, those behind a word of the negative prompt that
    the reply itself says, and those where the scheduler did not keep the draft whole: at the end of
    the context, before a grammar, behind a reply that was put off and starts again.

    Source:
        Drafted suffixes as branches: ours. Token Recycling: Luo et al. 2024, arXiv:2408.08696.
    """

    def __init__(self, vllm_config: Any) -> None:
        version = str(import_module("vllm").__version__)
        check_version(version, untested=is_set(UNTESTED, os.environ))
        self._worker = Worker.of(vllm_config)
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._seats = Seats(self._worker, self._most)
        self._recycled = Recycled(self._worker.vocab_size)
        self._runner: Runner | None = None
        self._hook: Hook | None = None

    def load_model(self, model: Any) -> None:
        """Stand around *model*'s computation of scores; called once, by the runner that loads it.

        Raises:
            EngineError: If that runner is not of a kind that is known: the server must not start.
            LexiconError: If it cannot be told what tokens write.
            ConfigError: If no token of the model's could end a reply that must not go on.
        """
        runner = runner_above(sys._getframe(1), model)
        mend_expansion()
        self._worker.get_ready()
        self._hook = Hook(
            model.compute_logits, runner, self._seats, self._worker, n_drafts=self._most
        )
        model.compute_logits = self._hook
        self._runner = runner

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: object = None,
    ) -> list[list[int]]:
        """Return drafts for every request of the batch, in order; called after every step.

        Args:
            sampled_token_ids: What each was given in this step; nothing in the middle of a prompt.
            num_tokens_no_spec: How many tokens each has, prompt included.
            token_ids_cpu: Not read: the runner's requests hold the same.
            slot_mappings: Not read.
        """
        if self._runner is None or self._hook is None:
            return [[] for _ in sampled_token_ids]
        names = self._runner.input_batch.req_ids
        self._learn(dict(zip(names, map(len, sampled_token_ids), strict=False)))
        return [
            self._draft(self._seats.find(name), int(n_tokens)) if sampled else []
            for name, sampled, n_tokens in zip(
                names, sampled_token_ids, num_tokens_no_spec, strict=False
            )
        ]

    def _learn(self, n_taken: dict[str, int]) -> None:
        assert self._hook is not None
        scored, self._hook.scored = self._hook.scored, {}
        taken = {name: one for name, one in scored.items() if n_taken.get(name)}
        try:
            self._recycled.learn([*taken.values()], [n_taken[name] for name in taken])
        except Exception:  # drafts may be lost, the engine not
            return

    def _draft(self, seat: Seat | None, n_tokens: int) -> list[int]:
        """Return the drafts behind a request's last token; *n_tokens* is its length."""
        if seat is None or seat.is_dead or seat.row.is_dead or self._runner is None:
            return []
        room = self._runner.max_model_len - n_tokens - 1
        if seat.suffix:
            return [*seat.suffix] if len(seat.suffix) <= room else []
        try:
            return self._recycle(seat, min(self._most, room))
        except Exception:  # see `_learn`
            return []

    def _recycle(self, seat: Seat, room: int) -> list[int]:
        if not seat.recycles:
            return []
        limit = seat.state.sampling_params.max_tokens
        if limit is not None:  # the last token is never behind a draft
            room = min(room, limit - len(seat.state.output_token_ids) - 1)
        return self._recycled.propose(
            seat.pool, seat.state.output_token_ids[-1], room, self._worker.eos
        )
