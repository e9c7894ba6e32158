"""What must not be said: the register, normal forms, the phrase mask and hold-back."""

from elision.guards.guard import Guard as Guard
from elision.guards.holdback import REDACTED as REDACTED
from elision.guards.holdback import HoldBack as HoldBack
from elision.guards.mask import PhraseMask as PhraseMask
from elision.guards.mask import PhrasePenalty as PhrasePenalty
from elision.guards.normal import N as N
from elision.guards.normal import N_b as N_b
from elision.guards.pattern_set import Hit as Hit
from elision.guards.targets import ForgetTarget as ForgetTarget
from elision.guards.targets import Phrase as Phrase
from elision.guards.watch import PhraseCount as PhraseCount
from elision.guards.watch import PhraseWatch as PhraseWatch
