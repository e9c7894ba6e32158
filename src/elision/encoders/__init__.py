"""Sentence encoders: texts in, unit vectors out."""

from elision.encoders.encoder import SentenceEncoder as SentenceEncoder
from elision.encoders.hashing import HashingEncoder as HashingEncoder
from elision.encoders.protocol import Encoder as Encoder

__all__ = ["Encoder", "HashingEncoder", "SentenceEncoder"]
