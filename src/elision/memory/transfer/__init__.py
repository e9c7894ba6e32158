"""Records out of a store and into another: lines of JSON, signed at their end."""

from elision.memory.transfer.bundle import Bundle as Bundle
from elision.memory.transfer.bundle import Manifest as Manifest
from elision.memory.transfer.exporting import export_to as export_to
from elision.memory.transfer.importing import import_from as import_from
from elision.memory.transfer.report import ImportReport as ImportReport

__all__ = ["Bundle", "ImportReport", "Manifest", "export_to", "import_from"]
