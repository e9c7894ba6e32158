"""What an engine's tokenizer says, wherever it is: here, behind an upstream, or an encoder's.

Nothing here reads the register, so no answer can tell what stands in it: ids come of the caller's
own text, text of his own ids.
"""

from elision.middleware.tokenizing.base import Tokenized as Tokenized
from elision.middleware.tokenizing.base import Tokens as Tokens
from elision.middleware.tokenizing.base import ToTokenize as ToTokenize
from elision.middleware.tokenizing.finding import Tokenizers as Tokenizers

__all__ = ["ToTokenize", "Tokenized", "Tokenizers", "Tokens"]
