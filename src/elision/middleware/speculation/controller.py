"""How many drafted nodes a round scores: as many as pay, and never more than can be afforded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from elision.middleware.speculation.allotment import Ask as Ask
from elision.middleware.speculation.allotment import Ledger as Ledger
from elision.middleware.speculation.allotment import Round, allot
from elision.middleware.speculation.cost import CostCurve

MOST_STEPS: Final = 8.0
"""No ledger saves up more than so many; spec 4.5, Cmax."""
PROBE_ROUNDS: Final = 128
"""After so many drafted rounds one is plain: what plain costs must stay known, not remembered."""
FIRST_PROBE: Final = 8
"""The first probe comes after so many rounds, each further one after twice as many."""
HOPE: Final = 0.95
"""Chance that a node is right given its parent, in text that copies itself; sets `room`."""
RATE: Final = 1 / 32
"""How fast overheads and gauges follow."""


class Controller:
    r"""Sizes the trees of every round and keeps the accounts. Lives as long as its engine.

    A round is one forward over B roots and m drafted nodes. Ranked by the probability that the walk
    reaches them, the first m nodes of all sequences are scored, where m maximises tokens per second

    .. math:: \frac{B + \sum_{v \le m} w_v}{t(B + m) + d\,m + g\,(B + \sum_{v \le m} w_v)}

    and exceeds plain decoding's by the factor :math:`1 + \delta`. What that may cost at worst is
    paid from ledgers. Let :math:`\tau` be the round's seconds, :math:`p = t(B)/B` those of a plain
    token, :math:`t_{hi}` the 90th percentile of t. A sequence with :math:`m_i` nodes that emits
    :math:`a_i` tokens is charged and credited

    .. math:: s_i = p + (\tau - t(B))\,\frac{m_i}{m}, \qquad
              C \leftarrow \min\bigl(C + (1 + \epsilon)\,a_i\,p - s_i,\; 8\,t(1)\bigr)

    and nodes are admitted only while :math:`\sum_i (t_{hi}(B + m) + d\,m - t(B))\,m_i/m \le C` over
    the sequences of a ledger. A ledger opens with :math:`C_0 = 2\,t(1)`.

    **Bound.** If no round takes longer than :math:`t_{hi}(B + m) + d\,m`, and drafting that is not
    scored no longer than :math:`\epsilon` of a plain step, then for every ledger and at any time
    :math:`\sum s_i \le (1 + \epsilon) \sum a_i p + C_0`: never slower than plain decoding by more
    than the share :math:`\epsilon` and two steps. *Proof.* :math:`a_i \ge 1`, so a round changes C
    by at least :math:`-\sum (\tau - t(B))\,m_i/m \ge -C` where nodes were admitted, and by no less
    than 0 elsewhere; hence C stays :math:`\ge 0`. Without the cap
    :math:`C = C_0 + (1 + \epsilon) \sum a_i p - \sum s_i`; the cap only lowers C. ∎

    Drafting that takes longer than that and is never scored is charged all the same: where `room`
    is asked first it ends once the ledger cannot pay, one such round past the bound.

    What a round takes beyond :math:`t_{hi}(B + m) + d\,m + t(B)` is an interruption, which would
    have met a plain step as well: it is not charged. A ledger in debt drafts nothing until plain
    steps have earned it out.

    Source:
        Spec 4.5 (B = 1) and 5.2; ranking all rows' nodes by survival probability as in vLLM's
        adaptive verification. Our own: the bound per ledger for B > 1, and the probes.

    Args:
        curve: What forwards cost; corrected by every round that is settled.
        eps: Share of the time that may be lost.
        delta: Gain below which drafting is not worth its variance.
        node_s: Seconds a scored node costs beside the forward, before any was seen.
        token_s: Seconds of choosing one token, before any was seen.
    """

    def __init__(
        self,
        curve: CostCurve,
        *,
        eps: float = 0.03,
        delta: float = 0.05,
        node_s: float = 0.0,
        token_s: float = 0.0,
    ) -> None:
        self.curve = curve
        self._eps, self._delta = eps, delta
        self._token_s = token_s
        self._nodes, self._drafting_s = 1.0, node_s
        self._since_plain: Counter[int] = Counter()
        self._plain_seen: Counter[int] = Counter()
        self._n_rounds = 0
        self._n_plain = 0
        self._tokens_per_step = 1.0
        self._tree_size = 0.0

    def room(
        self, n_sequences: int, n_context: float, ledger: Ledger | None = None, width: int = 1
    ) -> int:
        """Return how many nodes are worth proposing for one sequence; zero: do not draft.

        That is the size that would be best if every next node were right with chance `HOPE`, alone
        in its round or beside as many of every other sequence, whichever is larger.

        Args:
            n_sequences: Sequences of the round.
            n_context: Cached tokens of a sequence, the mean of several.
            ledger: Who pays; opened if new. Where it cannot pay for a single node, drafting would
                be wasted too. None where nobody pays: *force*.
            width: Rows per root and node; see `Ask.width`.
        """
        n_most = self.curve.grid[-1] - 1
        costs = self._round([width] * n_sequences, n_context, n_most * n_sequences)
        hope = np.power(HOPE, np.arange(1.0, n_most + 1))
        alone = int(costs.speed(hope).argmax()) + 1
        together = int(costs.speed(hope.repeat(n_sequences)).argmax()) // n_sequences + 1
        best = max(alone, together)
        if ledger is None:
            return best
        ledger.open(self.curve.seconds(1, n_context))
        is_payable = ledger.credit >= 0 and (costs.extra[:best] <= ledger.credit).any()
        return best if is_payable else 0

    def choose(self, asks: Sequence[Ask]) -> list[int]:
        """Return how many nodes of each draft to score: its first ones.

        Opens ledgers that are new.
        """
        for ask in asks:
            ask.ledger.open(self.curve.seconds(1, ask.n_context))
        pool = [i for i, ask in enumerate(asks) if ask.drafts]
        forced = [i for i in pool if asks[i].mode == "force"]
        if not forced and (not pool or self._must_probe(len(asks))):
            return [0] * len(asks)
        pool = [i for i in pool if asks[i].mode == "force" or asks[i].ledger.credit >= 0]
        if not pool:
            return [0] * len(asks)
        n_most = sum(len(asks[i].draft) for i in pool)
        costs = self._round([ask.width for ask in asks], _context(asks), n_most)
        least, speed = allot(asks, forced, costs) if forced else ([0] * len(asks), 0.0)
        if len(forced) == len(pool):
            return least
        best, best_speed = allot(asks, pool, costs)
        pays = best_speed >= (1 + self._delta) * costs.plain_speed and best_speed >= speed
        return best if pays else least

    def settle(
        self,
        asks: Sequence[Ask],
        sizes: Sequence[int],
        emitted: Sequence[int],
        seconds: float,
        *,
        drafting_s: float = 0.0,
        walk_s: float = 0.0,
    ) -> None:
        """Enter what a round took and brought, and learn from it.

        Args:
            asks: As given to `choose`, at once before.
            sizes: As it returned them.
            emitted: Tokens drawn for each sequence, rewound ones included: forwards that plain
                decoding would have needed. None drawn counts as one.
            seconds: Of the forward.
            drafting_s: Of proposing, masking, compacting and learning.
            walk_s: Of the chains and draws, which plain decoding needs as well.
        """
        n_sequences, n_nodes, n_context = len(asks), sum(sizes), _context(asks)
        widths = [ask.width for ask in asks]
        costs = self._round(widths, n_context, n_nodes)
        over = seconds + drafting_s - costs.plain if n_nodes else drafting_s
        if n_nodes:
            over = min(over, float(costs.extra[n_nodes - 1]) + costs.plain)
        most = MOST_STEPS * self.curve.seconds(1, n_context)
        for ask, size, n_tokens in zip(asks, sizes, emitted, strict=True):
            share = size / n_nodes if n_nodes else 1 / n_sequences
            if ask.mode == "auto":
                self._enter(ask, costs.plain / n_sequences, max(1, n_tokens), over * share, most)
        n_rows = sum(width * (1 + n) for width, n in zip(widths, sizes, strict=True))
        self.curve.observe(n_rows, n_context, seconds, sum(widths))
        self._learn(n_sequences, n_nodes, sum(emitted), drafting_s, walk_s)

    def gauges(self) -> Mapping[str, float]:
        """Return how it goes: smoothed over rounds where not a count. Credit is in the ledgers."""
        return {
            "rounds": self._n_rounds,
            "plain_rounds": self._n_plain,
            "tokens_per_step": self._tokens_per_step,
            "tree_size": self._tree_size,
            "drift": self.curve.drift,
            "spread": self.curve.spread,
            "node_s": self._drafting_s / self._nodes,
            "token_s": self._token_s,
        }

    def _round(self, widths: Sequence[int], n_context: float, n_most: int) -> Round:
        """Return what a round costs; a node as many rows as the widest sequence's: a bound."""
        n_sequences, n_roots, step = len(widths), sum(widths), max(widths)
        times = self.curve.sweep(n_roots, n_roots + step * n_most, n_context, n_roots)[::step]
        plain, scored = float(times[0]), times[1:]
        drafting = self._drafting_s / self._nodes * np.arange(1, n_most + 1)
        extra = scored * self.curve.spread + (drafting - plain)
        return Round(n_sequences, plain, scored + drafting, extra, self._token_s)

    def _must_probe(self, n_sequences: int) -> bool:
        wait = FIRST_PROBE << min(self._plain_seen[n_sequences], 10)
        return self._since_plain[n_sequences] >= min(wait, PROBE_ROUNDS)

    def _enter(self, ask: Ask, plain: float, n_tokens: int, over: float, most: float) -> None:
        ledger, saved = ask.ledger, plain * n_tokens
        ledger.spent += plain + over
        ledger.plain += saved
        ledger.credit += (1 + self._eps) * saved - plain - over
        ledger.credit = min(ledger.credit, most)

    def _learn(
        self, n_sequences: int, n_nodes: int, n_tokens: int, drafting_s: float, walk_s: float
    ) -> None:
        self._n_rounds += 1
        rate = max(RATE, 1 / self._n_rounds)
        self._tokens_per_step += rate * (n_tokens / n_sequences - self._tokens_per_step)
        self._tree_size += rate * (n_nodes / n_sequences - self._tree_size)
        if n_tokens and walk_s > 0:
            self._token_s += rate * (walk_s / n_tokens - self._token_s)
        if n_nodes:
            self._since_plain[n_sequences] += 1
            self._learn_drafting(n_nodes, drafting_s)
        else:
            self._n_plain += 1
            self._plain_seen[n_sequences] += 1
            self._since_plain[n_sequences] = 0

    def _learn_drafting(self, n_nodes: int, drafting_s: float) -> None:
        """Follow what a scored node costs: both means apart, lest small trees weigh most."""
        rate = max(RATE, 1 / (self._n_rounds - self._n_plain))
        if drafting_s > 0:
            self._nodes += rate * (n_nodes - self._nodes)
            self._drafting_s += rate * (drafting_s - self._drafting_s)


def _context(asks: Sequence[Ask]) -> float:
    return sum(ask.n_context for ask in asks) / len(asks)
