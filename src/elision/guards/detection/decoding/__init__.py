"""Decoders, one file per family; `elision.guards.detection.decoders` runs them."""

from elision.guards.detection.decoding.found import Decoded as Decoded
from elision.guards.detection.decoding.found import Decoder as Decoder
