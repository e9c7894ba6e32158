"""Masks on their way to another process: what must be forbidden where the scores are.

Only what a mask needs leaves this process: phrases and passages of targets that restrict, and soft
phrases. Titles, names, probes and answers stay, and so do passages that would take long to compile.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b, sha256
from itertools import accumulate
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Self

from elision.errors import TargetError
from elision.guards.fields import check_keys, items_of, kind_of
from elision.guards.guard import Guard
from elision.guards.phrase import Phrase
from elision.guards.targets import ForgetTarget
from elision.guards.verbatim.verbatim import Verbatim, brief_passages

if TYPE_CHECKING:
    from elision.contract import Lexicon, Recipe

_FORMAT: Final = 1
_KEYS: Final = frozenset({"format", "salt", "targets"})
_PARTS: Final = ("phrases", "passages")
MOST_CHARS: Final = 64 * 2**20
"""Characters of the longest text that is read from another process."""
MOST_PASSAGES: Final = 50_000
"""Characters of passages that are carried in all. The receiver compiles them between two steps of
all its requests, which wait: 50,000 take it .9 s, 300,000 five (measured on one core)."""
PRODUCT_BYTES: Final = 8 << 20
"""What a receiver remembers of a mask's states; it keeps the masks of many tenants."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Masks as a text that another process compiles; the ``repr`` tells nothing of them.

    Of passages the shortest are carried, `MOST_PASSAGES` characters in all, each whole or not at
    all. The others are guarded where the text is: whoever holds back a server's text compiles it
    from the targets themselves, not from this.

    Attributes:
        body: JSON: format, salt, and per target its phrases and passages.
        digest: By which the receiver tells it from others. The salt in the body keeps whoever sees
            a digest from guessing phrases until one fits.
        needs_user_text: Whether the caller's own words count: some phrase may be echoed, or some
            run go on that the caller began. True where that has not been looked at.
    """

    body: str = field(repr=False)
    digest: str
    needs_user_text: bool = field(default=True, compare=False)

    @classmethod
    def of(cls, targets: Iterable[ForgetTarget]) -> Self | None:
        """Return what masks of *targets* there are to carry; None if there are none."""
        targets = tuple(targets)
        fitting = _fitting(targets)
        carried = [body for target in targets if (body := _body_of(target, fitting))]
        if not carried:
            return None
        needs_user_text = any(
            body["passages"] or any(phrase["allow_echo"] for phrase in body["phrases"])
            for body in carried
        )
        carried.sort(key=json.dumps)  # whoever has the same targets has the same masks
        made = cls.loads(_written(carried, token_hex(16)))
        return replace(made, needs_user_text=needs_user_text)

    @classmethod
    def loads(cls, body: str) -> Self:
        """Return the masks that *body* describes; nothing is compiled yet."""
        data = body.encode("utf-8", "surrogatepass")
        return cls(body, blake2b(data, digest_size=16).hexdigest())

    def salted(self, secret: str) -> Self:
        """Return the same masks under a salt that follows from them and from *secret*.

        Whoever has the secret comes to the same digest, so that processes which share a server
        teach it once; nobody else can guess by it. Takes as long as reading the body: keep it.
        """
        targets = json.loads(self.body)["targets"]
        told = json.dumps(targets, separators=(",", ":"))
        key = secret.encode("utf-8", "surrogatepass")
        # An order is an object: no order's seal, under the same secret, is a salt.
        salt = hmac.new(key, b"salt" + told.encode(), sha256).hexdigest()
        return replace(self.loads(_written(targets, salt)), needs_user_text=self.needs_user_text)

    def compile(self) -> CompiledMasks:
        """Compile them; 10,000 phrases take a good part of a second.

        Raises:
            TargetError: If the body is not what `of` writes. The message repeats nothing of it.
        """
        # The body's own key, so that processes that share a model forbid the very same tokens.
        key = blake2b(self.body.encode("utf-8", "surrogatepass"), person=b"verbatim").digest()
        return CompiledMasks(_targets_of(self.body), key=key)


class CompiledMasks:
    """Masks of a `Carried`, ready for any lexicon. Immutable but for what is compiled at need.

    Args:
        targets: What they are of.
        key: Keys the digests of passages, 1 to 64 bytes; the same key forbids the same tokens.
    """

    def __init__(self, targets: Iterable[ForgetTarget], *, key: bytes | None = None) -> None:
        self._key = key
        self._targets = tuple(targets)

    def __repr__(self) -> str:
        return f"CompiledMasks({len(self._targets)} targets)"

    def recipes(self, lexicon: Lexicon) -> tuple[Recipe, ...]:
        """Return what enforces them; made at the first call per lexicon, then kept."""
        return (*self._guard.recipes(lexicon), *self._verbatim.recipes(lexicon))

    @cached_property
    def _guard(self) -> Guard:
        brief = (replace(t, phrases=(*t.phrases, *brief_passages(t))) for t in self._targets)
        return Guard.compile(brief, product_bytes=PRODUCT_BYTES)

    @cached_property
    def _verbatim(self) -> Verbatim:
        return Verbatim.compile(self._targets, key=self._key)


def _written(targets: list[dict[str, Any]], salt: str) -> str:
    whole = {"format": _FORMAT, "salt": salt, "targets": targets}
    return json.dumps(whole, separators=(",", ":"))


def _fitting(targets: Iterable[ForgetTarget]) -> frozenset[str]:
    """Return the passages that are carried: the shortest, so that as many as can be are."""
    restricting = (t for t in targets if t.state == "active" and t.action == "restrict")
    passages = sorted({p for t in restricting for p in t.passages}, key=lambda p: (len(p), p))
    ends = accumulate(map(len, passages))
    return frozenset(p for p, end in zip(passages, ends, strict=True) if end <= MOST_PASSAGES)


def _body_of(target: ForgetTarget, fitting: Set[str]) -> dict[str, Any]:
    """Return what is carried of *target*; nothing if no mask comes of it."""
    if target.state != "active" or target.action == "observe":
        return {}
    restricts = target.action == "restrict"
    phrases = [p.to_body() for p in target.phrases if restricts or p.mode == "soft"]
    passages = [p for p in target.passages if restricts and p in fitting]
    return {"phrases": phrases, "passages": passages} if phrases or passages else {}


def _targets_of(body: str) -> tuple[ForgetTarget, ...]:
    try:
        whole = object_of(body)
    except ValueError:
        raise TargetError("the masks that were carried here are no JSON object") from None
    is_known = {*whole} == _KEYS and repr(whole["format"]) == repr(_FORMAT)  # True is no format
    if not is_known or not isinstance(whole["salt"], str):
        raise TargetError("the masks that were carried here are of another format; use one version")
    targets = tuple(_target_of(item) for item in items_of(whole, "targets"))
    if not targets:
        # Whoever names these masks counts on being guarded by them.
        raise TargetError("the masks that were carried here are of no target")
    return targets


def _target_of(item: object) -> ForgetTarget:
    if not isinstance(item, Mapping):
        raise TargetError(f"a target that was carried here is {kind_of(item)}")
    check_keys(item, _PARTS, "targets")
    phrases = tuple(Phrase.from_body(phrase, "phrase") for phrase in items_of(item, "phrases"))
    target = ForgetTarget(title="carried", phrases=phrases, passages=items_of(item, "passages"))
    target.validate()
    return target


def object_of(text: object, *, most: int = MOST_CHARS) -> dict[str, Any]:
    """Return the JSON object that *text* writes.

    Args:
        text: A string; anything else is refused, too.
        most: Characters it may have.

    Raises:
        ValueError: If it is longer, is no object, nests too deeply, holds NaN, or names a key
            twice: readers differ on which of the two counts.
    """
    if not isinstance(text, str) or len(text) > most:
        raise ValueError("no string, or too long a one")
    try:
        found = json.loads(text, object_pairs_hook=_distinct, parse_constant=_infinity)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _infinity(name: str) -> float:
    if name == "NaN":
        raise ValueError("not a number")
    return float(name)
