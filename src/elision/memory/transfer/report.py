"""What an import did, or would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from elision.memory.transfer.bundle import Manifest


class Fate(StrEnum):
    """What becomes of one record of a bundle."""

    CREATED = "created"
    REPLACED = "replaced"
    SAME = "same"
    """The very same is there; nothing is written."""
    SKIPPED = "skipped"
    """Its id or its key is taken."""
    EXPIRED = "expired"
    BURIED = "buried"
    """It was erased here, or was made from what was."""
    SCREENED = "screened"
    """A forget target forbids it, or what it was made from."""
    FOREIGN = "foreign"
    """Its id is another tenant's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, or with ``dry_run`` would do.

    Attributes:
        n_records: In the bundle.
        fates: How many of them came to what.
        n_orphans: Parents that are neither in the bundle nor here; those links are lost.
        n_subjects_lost: Records whose persons cannot be told any more: the bundle was written
            under another master key, or for another tenant.
        n_embedded: Records whose text was encoded here; the others had none, or brought a vector.
        key_id: Of the key that signed the bundle.
        is_known: Whether that key is the store's own or was named as trusted.
        dry_run: Whether nothing was written.
    """

    n_records: int
    fates: Mapping[Fate, int]
    n_orphans: int
    n_subjects_lost: int
    n_embedded: int
    key_id: str
    is_known: bool
    dry_run: bool


class Tally:
    """Counts while an import runs."""

    def __init__(self) -> None:
        self.fates: Counter[Fate] = Counter()
        self.orphans: set[str] = set()
        self.n_subjects_lost = 0
        self.n_embedded = 0

    def report(self, manifest: Manifest, *, is_known: bool, dry_run: bool) -> ImportReport:
        """Return what was counted."""
        return ImportReport(
            n_records=manifest.n_records,
            fates={fate: self.fates[fate] for fate in Fate if self.fates[fate]},
            n_orphans=len(self.orphans),
            n_subjects_lost=self.n_subjects_lost,
            n_embedded=self.n_embedded,
            key_id=manifest.key_id,
            is_known=is_known,
            dry_run=dry_run,
        )
