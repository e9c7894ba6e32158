"""What an encoder is to whoever uses one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors whose dot product is their cosine.

    Attributes:
        name: The model's alias, for reports.
        dim: Numbers per vector.
    """

    name: str
    dim: int

    def embed(self, texts: Sequence[str], *, tenant: str) -> Future[NDArray[np.float32]]:
        """Return, in time, one unit vector per text, shape ``(len(texts), dim)``, float32.

        Texts that were embedded for *tenant* before come from a cache; no tenant reads another's.

        Raises:
            EngineError: In the future, if the encoder breaks or is closed.
        """
        ...

    def close(self) -> None:
        """Free the model and end its thread. Idempotent."""
        ...
