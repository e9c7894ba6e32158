r"""The guard's masks over JSON as its reader will parse it: ``\n`` is a line's end, not an *n*."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from elision.guards.phrases.mask import PhraseMask
from elision.guards.phrases.normal import N
from elision.guards.phrases.product import Blocked, Product
from elision.guards.phrases.recent import Recent
from elision.guards.phrases.vocabulary import ids
from elision.lexicon import decode

if TYPE_CHECKING:
    from elision.contract import Lexicon, Recipe
    from elision.guards.phrases.pattern_set import PatternSet, Reading

RANK: Final = -5
"""Behind the grammar, before the guard's own masks."""

_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_PARTS: Final = re.compile(
    rf"(?P<plain>[^\\]+)|(?P<pair>{_HIGH}\\u[dD][c-fC-F][0-9a-fA-F]{{2}})"
    rf"|(?P<begun>(?:{_HIGH})?\\(?:u[0-9a-fA-F]{{0,3}})?\Z|{_HIGH}\Z)"
    r"|(?P<unit>\\u[0-9a-fA-F]{4})|\\(?P<short>.)",
    re.DOTALL,
)
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_GOES_ON: Final = frozenset('"\\/bfnrtu0123456789abcdefABCDEF')
"""What may come behind the beginning of an escape."""

_products: Final[WeakKeyDictionary[Product, Product]] = WeakKeyDictionary()
_lexicons: Final[WeakKeyDictionary[Lexicon, UnescapedLexicon]] = WeakKeyDictionary()
_lock: Final = Lock()


def in_json(recipes: Iterable[Recipe]) -> tuple[Recipe, ...]:
    """Return *recipes* as they act on a reply that is JSON of a schema.

    Each phrase mask acts twice: on the text as it stands, and with its escapes undone. And however
    little probability it leaves, the reply goes on with that: what the schema has instead, such as
    another value of a list, is right even if the model would never have said it.

    The first call for a guard compiles, as `Guard.recipes` does: not for the event loop.
    """
    return tuple(one for recipe in recipes for one in _twice(recipe))


def unescaped_masks(recipes: Iterable[Recipe]) -> tuple[Recipe, ...]:
    """Return the phrase masks of *recipes* over the text with its escapes undone alone."""
    return tuple(
        PhraseMask(product=_unescaped(recipe.product), min_mass=0.0, rank=RANK)
        for recipe in recipes
        if isinstance(recipe, PhraseMask)
    )


def _twice(recipe: Recipe) -> tuple[Recipe, ...]:
    if not isinstance(recipe, PhraseMask):
        return (recipe,)
    return *unescaped_masks((recipe,)), replace(recipe, min_mass=0.0)


def _unescaped(product: Product) -> Product:
    with _lock:
        if (known := _products.get(product)) is None:
            lexicon = _lexicons.get(product.lexicon) or UnescapedLexicon(product.lexicon)
            _lexicons[product.lexicon] = lexicon
            known = _products[product] = UnescapedProduct(product.patterns, lexicon)
        return known


class UnescapedProduct(Product):
    """Phrases times what tokens write once they are parsed.

    Behind the beginning of an escape no token may bring letters of its own, which would have to be
    tried one by one: they come in the next. That rules out no text, only ways to cut it.

    Args:
        patterns: The phrases.
        lexicon: The tokens.
    """

    def __init__(self, patterns: PatternSet, lexicon: UnescapedLexicon) -> None:
        super().__init__(patterns, lexicon)
        self._unescaped = lexicon

    def blocked(self, reading: Reading, excluded: frozenset[int] = frozenset()) -> Blocked:
        """Return the tokens that must not come next; see `Product.blocked`."""
        if reading.pending.startswith(b"\\"):
            return self._unescaped.lettered(reading.pending)
        return super().blocked(reading, excluded)


class UnescapedLexicon:
    """What tokens of JSON write once it is parsed; an escape waits like half a character.

    Args:
        lexicon: What they write.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        # Not the lexicon itself: it is the key under which this is kept, and would never go.
        self._bytes = tuple(map(lexicon.bytes_of, range(len(lexicon))))
        self.texts = tuple(_whole(text) for text in lexicon.texts)
        self.partial = tuple(token for token, text in enumerate(self.texts) if text is None)
        self.continuing = lexicon.continuing
        self._completing = [t for t, s in enumerate(lexicon.texts) if s and s[0] in _GOES_ON]
        self._lettered = Recent[bytes, Blocked](entries=64)

    def __len__(self) -> int:
        return len(self.texts)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that *token* writes, escapes and all."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def write(self, pending: bytes, token: int) -> tuple[str, bytes]:
        """Return what *token* adds to the parsed text, and the bytes that still wait."""
        if not pending and 0 <= token < len(self.texts):
            text = self.texts[token]
            if text is not None:
                return text, b""
        source, rest = decode(pending + self.bytes_of(token))
        text, begun = undone(source)
        return text, begun.encode() + rest

    def lettered(self, pending: bytes) -> Blocked:
        """Return the tokens that go on with the escape *pending*, and write letters or digits."""
        if (known := self._lettered.get(pending)) is None:
            written = ((token, self.write(pending, token)[0]) for token in self._completing)
            found = [token for token, text in written if N(text)]
            known = Blocked(ids(found), max(found, default=-1))
            self._lettered.put(pending, known)
        return known

    def finish(self, pending: bytes) -> str:
        """Return the text that *pending* becomes when nothing follows it."""
        return pending.decode("utf-8", "replace")


def _whole(text: str | None) -> str | None:
    if text is None or "\\" not in text:
        return text
    whole, begun = undone(text)
    return None if begun else whole


def undone(source: str) -> tuple[str, str]:
    r"""Return *source* with its escapes undone, and the escape that is begun at its end.

    What JSON does not know, such as ``\x``, stands for the character behind the backslash; half
    of a surrogate pair for U+FFFD.
    """
    parts, begun = list[str](), ""
    for found in _PARTS.finditer(source):
        kind, text = str(found.lastgroup), found[0]
        if kind == "begun":
            begun = text
        elif kind == "short":
            parts.append(_SHORT.get(found["short"], found["short"]))
        elif kind == "plain":
            parts.append(text)
        else:
            units = bytes.fromhex(text.replace("\\u", ""))
            parts.append(units.decode("utf-16-be", "replace"))
    return "".join(parts), begun
