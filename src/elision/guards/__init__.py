"""What must not be said: the register, normal forms, the phrase mask and hold-back."""

from elision.guards.guard import Guard as Guard
from elision.guards.phrases.holdback import REDACTED as REDACTED
from elision.guards.phrases.holdback import HoldBack as HoldBack
from elision.guards.phrases.mask import PhraseMask as PhraseMask
from elision.guards.phrases.mask import PhrasePenalty as PhrasePenalty
from elision.guards.phrases.normal import N as N
from elision.guards.phrases.normal import N_b as N_b
from elision.guards.phrases.pattern_set import Hit as Hit
from elision.guards.phrases.watch import PhraseCount as PhraseCount
from elision.guards.phrases.watch import PhraseWatch as PhraseWatch
from elision.guards.targets import ForgetTarget as ForgetTarget
from elision.guards.targets import Phrase as Phrase
