"""Which remembered vectors lie nearest; derived from the store, and disposable."""

from elision.memory.index.index import VectorIndex as VectorIndex
from elision.memory.index.vectors import from_bytes as from_bytes
from elision.memory.index.vectors import to_bytes as to_bytes
from elision.memory.index.vectors import unit as unit

__all__ = ["VectorIndex", "from_bytes", "to_bytes", "unit"]
