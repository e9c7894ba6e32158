"""Quantiles of the Beta distribution, without SciPy."""

from __future__ import annotations

from math import exp, isfinite, lgamma, log, log1p
from typing import Final

from elision.errors import ConfigError

_TINY: Final = 1e-300
_CLOSE: Final = 1e-15
_MOST_TERMS: Final = 10_000
_HALVINGS: Final = 60


def cdf(x: float, a: float, b: float) -> float:
    r"""Return :math:`I_x(a, b)`, the probability that a Beta(a, b) variable is at most *x*.

    Args:
        x: 0 to 1; beyond it the answer is 0 or 1.
        a: Above 0.
        b: Above 0.

    Raises:
        ConfigError: If a parameter is not a finite number above 0.

    Source:
        The continued fraction of Abramowitz and Stegun 1964, 26.5.8, evaluated by Lentz's method
        (Thompson and Barnett 1986, J. Comput. Phys. 64, 490-509), on the side of the mean where it
        converges fast.
    """
    if not (isfinite(a) and isfinite(b) and a > 0 and b > 0):
        raise ConfigError(f"Beta({a}, {b}): both parameters are finite and above 0")
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1 - front * _fraction(1 - x, b, a) / b


def quantile(p: float, a: float, b: float) -> float:
    """Return the *x* with ``cdf(x, a, b) = p``, within 1e-15, by bisection.

    Rises with *p* and *a* and falls with *b*.

    Raises:
        ConfigError: As `cdf`; or if *p* is no probability.
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"p is {p}; a probability lies between 0 and 1")
    if p in (0, 1):
        return float(p)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction that `cdf` multiplies its front with."""
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _CLOSE:
            break
    return value


def _away(x: float) -> float:
    """Return *x*, kept from nought: Lentz's method divides by it."""
    return x if abs(x) > _TINY else _TINY
