"""Log-probabilities as they are reported: after masks, before temperature."""

from __future__ import annotations

from torch import Tensor

from elision.contract import Alternative, Lexicon, TokenLogprob


def report(
    scores: Tensor, nameable: Tensor, token: int, *, n_top: int, lexicon: Lexicon
) -> TokenLogprob:
    """Return *token*'s entry with its *n_top* likeliest alternatives.

    Args:
        scores: Masked scores before temperature, shape ``(vocab,)``.
        nameable: The same with what may not be named at ``-inf``; alternatives come from it.
        token: The token that was drawn.
        n_top: Alternatives wanted; fewer are returned if fewer are allowed.
        lexicon: What tokens write.
    """
    normaliser = scores.float().logsumexp(dim=-1)
    logprob = float(scores[token] - normaliser)
    best, ids = nameable.float().topk(min(n_top, nameable.shape[-1]))
    top = tuple(
        Alternative(_named(other, lexicon), value, lexicon.bytes_of(other))
        for other, value in zip(ids.tolist(), (best - normaliser).tolist(), strict=True)
        if value != float("-inf")
    )
    return TokenLogprob(_named(token, lexicon), logprob, lexicon.bytes_of(token), top)


def _named(token: int, lexicon: Lexicon) -> str:
    return lexicon.bytes_of(token).decode("utf-8", "replace")
