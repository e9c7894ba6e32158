"""Decoders, one file per family; `elision.guards.decoders` runs them."""

from elision.guards.decoding.found import Decoded as Decoded
from elision.guards.decoding.found import Decoder as Decoder
