"""EM-INF over one row, compiled: what `rows` asks for, in loops that a processor runs at once.

Imported where it is first needed, for it imports numba and compiles: some seconds once, and a
fraction of one where the folder of this file, or the user's cache, keeps what was compiled. What is
kept is made anew when this file changes, not when one does from which it has a number.
"""

from __future__ import annotations

from math import exp, inf, isfinite, log, sqrt
from typing import Any, Final, TypeAlias

import numpy as np

from elision.middleware.interventions.entropy.compiling import jit, kept
from elision.middleware.interventions.entropy.minimisation import BETA1, BETA2, EPS

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

NO_ROW, CALM, SHARPENED, WHOLE = range(4)
"""What became of a row: it has no distribution; it is not hesitant; it was sharpened; every score
of it must be moved, and none was."""

_NODES: Final = (-0.7, -4.0, -9.0, -13.0)
"""Where the nodes lie, in nats from the cut between head and tail; found by measuring."""
_MARGIN: Final = 1.5
"""Nats from the mean score to the cut; nearer to it, the tail moves unlike the nodes."""
_WIDER: Final = 4.0
"""Nats that the cut moves away where the mean lies too near to it."""
_SAMPLE: Final = 1024
"""Tokens of a row, at the least, that are asked how far Adam's epsilon holds their like back."""
_AT_ONCE: Final = 512
"""Scores that are read together; a sum over them in float32 is exact enough."""
_LANES: Final = 64
"""Best scores that are kept side by side, for a processor compares many at once."""

_f, _i = np.float32, np.int32
_DEEPEST: Final = _f(-88.0)
"""Scores below count as this, whose mass is 0 here: float32 hardly tells it from that."""
_OCTAVES: Final = _f(1.44269504)
"""In a nat."""
_OCTAVE: Final = _f(0.693359375), _f(2.12194440e-4)
"""Nats: the difference of two numbers, so that many octaves keep their last digits."""


@jit
def _best(row: Array) -> Any:
    """Return the best of *row*, leaving out what is no number."""
    lanes = np.full(_LANES, -inf, np.float32)
    whole = row.size // _LANES * _LANES
    for start in range(0, whole, _LANES):
        for lane in range(_LANES):
            score = row[start + lane]
            lanes[lane] = score if score > lanes[lane] else lanes[lane]
    best = lanes.max()
    for n in range(whole, row.size):
        best = max(best, row[n])
    return best


@jit
def _lowered(scores: Array, best: Any, cut: Any, out: Array) -> Any:
    """Write *scores* below *best* into *out*; return how many lie within *cut* of it."""
    near = _f(0)
    for n in range(scores.size):
        z = scores[n] - best
        z = _DEEPEST if z < _DEEPEST else z
        near += _f(1) if z > -cut else _f(0)  # as wide as the scores, to be counted as fast
        out[n] = z
    return near


@jit
def _mass(z: Any) -> Any:
    """Return e^z for z from -88 to 0, by Cephes' polynomial, in float32."""
    octaves = _i(z * _OCTAVES - _f(0.5))
    t = z - _f(octaves) * _OCTAVE[0] + _f(octaves) * _OCTAVE[1]
    p = _f(1.9875691500e-4)
    p = p * t + _f(1.3981999507e-3)
    p = p * t + _f(8.3334519073e-3)
    p = p * t + _f(4.1665795894e-2)
    p = p * t + _f(1.6666665459e-1)
    p = p * t + _f(5.0000001201e-1)
    p = p * t * t + t + _f(1)
    return p * _i(_i(octaves + _i(127)) << _i(23)).view(np.float32)


@jit
def _sums(scores: Array) -> Any:
    """Return the sums of e^z and of e^z z."""
    mass = moment = _f(0)
    for n in range(scores.size):
        w = _mass(scores[n])
        mass += w
        moment += w * scores[n]
    return mass, moment


@jit
def _read(row: Array, best: Any, cut: Any, ids: Array, head: Array) -> Any:
    """Write the head into *ids* and *head*; return its size, and the tail's e^z and e^z z."""
    n_head, mass, moment = 0, 0.0, 0.0
    scores = np.empty(_AT_ONCE, np.float32)
    for start in range(0, row.size, _AT_ONCE):
        some = scores[: min(_AT_ONCE, row.size - start)]
        if _lowered(row[start : start + some.size], best, cut, some):
            for n in range(some.size):
                if some[n] > -cut:
                    ids[n_head], head[n_head] = start + n, some[n]
                    n_head += 1
                    some[n] = _DEEPEST
        m, o = _sums(some)
        mass += m
        moment += o
    return n_head, mass, moment


@jit
def _held(row: Array, best: Any, cut: Any, mean: float, floor: float) -> Any:
    """Return the sums of e^z s and e^z s z over the tail, told from a sample of it.

    s, as in `minimise_entropies_`, is near 0 but for tokens whose gradient is near Adam's
    epsilon: both sums are at most some 5e-5 of the row's mass, so that a sample's few hundredths of
    them are nothing.
    """
    stride = max(1, row.size // _SAMPLE)
    mass = moment = 0.0
    for n in range(0, row.size, stride):
        z = max(row[n] - best, _DEEPEST)
        if z <= -cut:
            w = _mass(z)
            held = w * floor / (w * (mean - z) + floor)
            mass += held
            moment += held * z
    return mass * stride, moment * stride


@jit
def _solve_(a: Array, b: Array) -> None:
    """Solve a x = b by elimination with row pivots; x takes the place of b, and a is spoilt."""
    size = b.size
    for n in range(size):
        pivot = n + np.abs(a[n:, n]).argmax()
        for m in range(size):
            a[n, m], a[pivot, m] = a[pivot, m], a[n, m]
        b[n], b[pivot] = b[pivot], b[n]
        for k in range(n + 1, size):
            share = a[k, n] / a[n, n]
            a[k] -= share * a[n]
            b[k] -= share * b[n]
    for n in range(size - 1, -1, -1):
        for m in range(n + 1, size):
            b[n] -= a[n, m] * b[m]
        b[n] /= a[n, n]


@jit
def _n_like(cut: float, mean: float, floor: float, tail: Array) -> Array:
    """Return how many tokens each node stands for, by what *tail* has of 1, z, s and zs."""
    basis = np.empty((len(_NODES), len(_NODES)))
    for n in range(len(_NODES)):
        z = _NODES[n] - cut
        s = floor / (exp(z) * (mean - z) + floor)
        basis[0, n], basis[1, n], basis[2, n], basis[3, n] = 1.0, z, s, s * z
    _solve_(basis, tail)
    for n in range(len(_NODES)):
        tail[n] /= exp(_NODES[n] - cut)
    return tail


@jit
def _descend_(
    y: Array, n_like: Array, threshold: float, kl_weight: float, lr: float, steps: int
) -> None:
    """Move points as `minimise_entropy` moves scores, once at least; see `_n_like`."""
    probs, pull, first, second = np.zeros((4, y.size))
    for step in range(1, steps + 1):
        total = moment = 0.0
        for n in range(y.size):
            probs[n] = exp(y[n])
            total += n_like[n] * probs[n]
            moment += n_like[n] * probs[n] * y[n]
        mean = moment / total
        if step > 1 and log(total) - mean <= threshold:
            break
        bias1, bias2 = 1 - BETA1**step, sqrt(1 - BETA2**step)
        for n in range(y.size):
            prob = probs[n] / total
            if step == 1:
                pull[n] = kl_weight * prob
            gradient = prob * (mean + kl_weight - y[n]) - pull[n]
            first[n] += (1 - BETA1) * (gradient - first[n])
            second[n] += (1 - BETA2) * (gradient * gradient - second[n])
            y[n] -= lr * bias2 / bias1 * first[n] / (sqrt(second[n]) + EPS * bias2)


@jit
def moved(
    row: Array,
    cut: float,
    widest: float,
    threshold: float,
    kl_weight: float,
    lr: float,
    steps: int,
) -> Any:
    """Return where a row's head goes; see `sharpen_`, which writes it there.

    Returns:
        What becomes of the row; its best score; the ids of its head, shape ``(K,)``; their scores
        behind the descent, relative to the best as it was, float64, shape ``(K,)``.
    """
    best = _best(row)
    ids, head = np.empty(row.size, np.int32), np.empty(row.size, np.float32)
    if not isfinite(best):
        return NO_ROW, best, ids[:0], np.empty(0)
    while True:
        n_head, mass, moment = _read(row, best, _f(cut), ids, head)
        y = np.empty(n_head + len(_NODES))
        total, weighted = mass, moment
        for n in range(n_head):
            y[n] = head[n]
            total += exp(y[n])
            weighted += exp(y[n]) * y[n]
        mean = weighted / total
        if not isfinite(mean):
            return NO_ROW, best, ids[:0], y[:0]
        if mean == 0 or log(total) - mean <= threshold:
            return CALM, best, ids[:0], y[:0]
        if mean >= _MARGIN - cut:
            break
        if cut >= widest:
            return WHOLE, best, ids[:0], y[:0]
        cut = min(cut + _WIDER, widest)
    n_like = np.ones(y.size)
    held, held_z = _held(row, best, _f(cut), mean, EPS * total)
    tail = np.array([mass, moment, held, held_z])
    n_like[n_head:] = _n_like(cut, mean, EPS * total, tail)
    for n in range(len(_NODES)):
        y[n_head + n] = _NODES[n] - cut
    _descend_(y, n_like, threshold, kl_weight, lr, steps)
    status = SHARPENED if np.isfinite(y).all() else WHOLE
    return status, best, ids[:n_head], y[:n_head]


@kept("int64(float32[::1], float64, float64, float64, float64, float64, int64)")
def sharpen_(
    row: Array,
    cut: float,
    widest: float,
    threshold: float,
    kl_weight: float,
    lr: float,
    steps: int,
) -> int:
    """Sharpen a hesitant row, in place, as `minimise_entropies_` says.

    Args:
        row: Scores, float32, shape ``(V,)``, side by side in memory.
        cut: Nats from the best score to where the tail begins.
        widest: Nats to which the cut may move away, where the mean lies too near to it.
        threshold: See `minimise_entropy`, as for what follows.
        kl_weight: See there.
        lr: See there.
        steps: See there.

    Returns:
        `NO_ROW`, `CALM`, `SHARPENED` or `WHOLE`; the row was written to if it is `SHARPENED`.
    """
    status, best, ids, y = moved(row, cut, widest, threshold, kl_weight, lr, steps)
    if status == SHARPENED:
        for n in range(ids.size):
            row[ids[n]] = y[n] + best
    return int(status)
