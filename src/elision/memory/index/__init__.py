"""Which remembered vectors lie nearest; derived from the store, and disposable."""

from elision.memory.index.index import IVF_FROM as IVF_FROM
from elision.memory.index.index import VectorIndex as VectorIndex
from elision.memory.index.partitions import Partitions as Partitions
from elision.memory.index.vectors import from_bytes as from_bytes
from elision.memory.index.vectors import to_bytes as to_bytes
from elision.memory.index.vectors import unit as unit

__all__ = ["IVF_FROM", "Partitions", "VectorIndex", "from_bytes", "to_bytes", "unit"]
