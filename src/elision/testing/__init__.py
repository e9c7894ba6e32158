"""Laws, tiny models and scripted engines for tests of your own plug-ins.

`elision.testing.laws` has the checkers, `elision.testing.scripted` the model that knows what you
plant; the latter imports torch and transformers, nothing here does before it is called.
"""

from __future__ import annotations

from elision.testing.broken import Breaking as Breaking
from elision.testing.encoders import BagEncoder as BagEncoder
from elision.testing.models import ARCHITECTURES as ARCHITECTURES
from elision.testing.models import tiny_model as tiny_model
from elision.testing.script import FactTable as FactTable
from elision.testing.spellings import SPELLINGS as SPELLINGS
from elision.testing.text_engine import TextEngine as TextEngine
from elision.testing.tokenizers import byte_lexicon as byte_lexicon
from elision.testing.tokenizers import byte_tokenizer as byte_tokenizer
from elision.testing.tokenizers import word_tokenizer as word_tokenizer
