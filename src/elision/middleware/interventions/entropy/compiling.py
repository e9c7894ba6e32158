"""How loops are compiled: by numba, into what a processor runs many scores at once with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba

_F = TypeVar("_F", bound=Callable[..., Any])
_numba: Any = numba  # its own types say little

IS_OFF: Final[bool] = bool(_numba.config.DISABLE_JIT)
"""Whether ``NUMBA_DISABLE_JIT`` is set: nothing is compiled then."""


def jit(function: _F) -> _F:
    """Compile *function* along with what calls it."""
    made: _F = _compiler()(function)
    return made


def kept(signature: str) -> Callable[[_F], _F]:
    """Compile a function, and all that it calls, at once; or take what was kept of that.

    Args:
        signature: The types of its arguments, as numba writes them.
    """

    def compile_(function: _F) -> _F:
        try:
            made: _F = _compiler(signature, cache=True)(function)
        except Exception:  # no folder may be written to, or the disk is full, or a file is broken
            made = _compiler(signature)(function)
        return made

    return compile_


def _compiler(*signature: str, cache: bool = False) -> Any:
    # Sums may be taken in any order; what is no number stays so.
    sums = {"reassoc", "contract", "arcp", "nsz"}
    return _numba.njit(*signature, cache=cache, nogil=True, error_model="numpy", fastmath=sums)
