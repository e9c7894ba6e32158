"""The lines of a bundle: what each may hold, and how it is written.

::

    {"line": "manifest", "format": ..., "encoder": ..., "vault": ..., "vectors": ...}
    {"line": "record", "id": ..., "parents": [...], ...}
    {"line": "evidence", "record": ..., ...}     right behind their record
    {"line": "move", "record": ..., ...}
    {"line": "end", "records": ..., "sha256": ..., "public_key": ..., "signature": ...}

``sha256`` runs over the lines before: that of a line and of the sum before it, from line to line.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import orjson
import rfc8785
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from elision.errors import RequestError
from elision.memory.bodies import dumped
from elision.memory.learning.evidence import Arm
from elision.memory.records import DEEPEST, LONGEST_KEY, LONGEST_LABEL

FORMAT: Final = "elision-memory-export/1"
LONGEST_LINE: Final = 24 << 20
"""Bytes: a body of `elision.memory.bodies.LARGEST`, whose quotes are escaped, and a vector."""
_MOST_PARENTS: Final = 10_000
_MOST: Final = 2**31
"""Versions and numbers of episodes are less; the columns hold 31 bits."""
_TOKENS: Final = 2**62
"""Sums of tokens are less; the columns hold 63 bits."""
_MOST_FIGURES: Final = 32

Id: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,24}$")]
Digest: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Label: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_LABEL)]
Code: TypeAlias = Annotated[str, StringConstraints(max_length=32)]
State: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,16}$")]
Reason: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{0,32}$")]
Actor: TypeAlias = Annotated[
    str, StringConstraints(pattern=rf"^[A-Za-z0-9_.:@+/-]{{1,{LONGEST_LABEL}}}$")
]
Version: TypeAlias = Annotated[int, Field(gt=0, lt=_MOST)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=_MOST)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
Whole: TypeAlias = Annotated[int, Field(gt=-_TOKENS, lt=_TOKENS)]
Share: TypeAlias = Annotated[FiniteFloat, Field(ge=0, le=1)]
Sum: TypeAlias = Annotated[FiniteFloat, Field(ge=0)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"  # what it holds is nobody's business in a traceback

    __str__ = __repr__


class ManifestLine(_Line):
    """What the rest is to be read with.

    Attributes:
        format: See `FORMAT`.
        encoder: Name and dimension of what made the vectors.
        vault: Keyed digest of nothing: equal where the digests of subjects mean the same.
        vectors: Whether records bring theirs.
    """

    line: Literal["manifest"] = "manifest"
    format: Literal["elision-memory-export/1"] = FORMAT
    encoder: str | None = Field(default=None, max_length=512)
    vault: Digest
    vectors: bool = False


class RecordLine(_Line):
    """A record; see `elision.memory.records.Record`.

    Attributes:
        ttl_s: The time to live that it was given.
        parents: Ids of the records that it was made from.
        subjects: Keyed digests of the persons it is about.
        vector: Its text's, little-endian float32 in base64.
    """

    line: Literal["record"] = "record"
    id: Id
    tenant: Label
    namespace: Annotated[tuple[Label, ...], Field(max_length=DEEPEST, strict=False)]
    key: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_KEY)]
    kind: Code
    text: str
    value: dict[str, Any]
    state: Code
    trust: Annotated[int, Field(ge=0, le=4)]
    version: Version
    created_at: FiniteFloat
    updated_at: FiniteFloat
    expires_at: FiniteFloat | None = None
    ttl_s: PositiveFloat | None = None
    parents: Annotated[tuple[Id, ...], Field(max_length=_MOST_PARENTS, strict=False)] = ()
    subjects: Annotated[tuple[Digest, ...], Field(max_length=_MOST_PARENTS, strict=False)] = ()
    vector: str | None = None


class ArmLine(_Line):
    """See `elision.memory.learning.evidence.Arm`; sums that no rewards can have are refused."""

    n: Count
    rewards: Sum
    rewards_sq: Sum
    tokens: Annotated[int, Field(ge=0, lt=_TOKENS)]
    tokens_sq: Annotated[int, Field(ge=0, lt=_TOKENS)]
    cost: Sum
    cost_sq: Sum

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        # Rounding: sums of up to n floats may exceed n by n units in the last place.
        slack = 1e-6 * (1 + self.n)
        if not self.rewards_sq <= self.rewards + slack <= self.n + 2 * slack:
            raise ValueError("rewards lie between 0 and 1")
        if not self.n and any((self.tokens, self.tokens_sq, self.cost, self.cost_sq)):
            raise ValueError("no episode has no tokens and no cost")
        return self

    def arm(self) -> Arm:
        """Return it as `Arm`."""
        return Arm(**self.model_dump())


class EvidenceLine(_Line):
    """One phase of an entry's evidence; see ``evidence`` in `elision.memory.schema`."""

    line: Literal["evidence"] = "evidence"
    record: Id
    version: Version
    propensity: Share
    applied: ArmLine
    withheld: ArmLine
    adopted: Count
    adopted_ok: Count

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if not self.adopted_ok <= self.adopted <= self.applied.n:
            raise ValueError("no more adoptions than episodes")
        return self


class MoveLine(_Line):
    """One move of an entry; see ``moves`` in `elision.memory.schema`.

    Its fields stand in clear wherever it is kept, so they are figures and codes.

    Attributes:
        actor: Who asked for it, as `actor_code` writes it.
    """

    line: Literal["move"] = "move"
    record: Id
    at: FiniteFloat
    source: State
    target: State
    reason: Reason
    actor: Actor
    figures: Annotated[dict[Name, Whole | FiniteFloat | None], Field(max_length=_MOST_FIGURES)]


class EndLine(_Line):
    """What the lines before came to, and who says so.

    Attributes:
        records: How many.
        sha256: See the module.
        public_key: Of the store that wrote them, in PEM.
        signature: Over the canonical JSON of the other fields, in base64.
    """

    line: Literal["end"] = "end"
    records: NonNegativeInt
    sha256: Digest
    public_key: Annotated[str, StringConstraints(max_length=1024)]
    signature: Annotated[str, StringConstraints(max_length=128)]

    def signed(self) -> bytes:
        """Return what the signature is over."""
        return signed(self.records, self.sha256, self.public_key)


def actor_code(actor: str) -> str:
    """Return who acted as a code: what is no letter, digit or mark of an id is an underscore."""
    return re.sub(r"[^A-Za-z0-9_.:@+/-]", "_", actor)


def signed(records: int, sha256: str, public_key: str) -> bytes:
    """Return what the signature of an `EndLine` is over."""
    return rfc8785.dumps(
        {"line": "end", "records": records, "sha256": sha256, "public_key": public_key}
    )


AnyLine: TypeAlias = ManifestLine | RecordLine | EvidenceLine | MoveLine | EndLine
_LINE: Final[TypeAdapter[AnyLine]] = TypeAdapter(Annotated[AnyLine, Field(discriminator="line")])


def parsed(data: bytes, n: int) -> AnyLine:
    """Return line *n* of a bundle.

    Raises:
        RequestError: If it is no such line; what it holds is not repeated.
    """
    try:
        return _LINE.validate_python(orjson.loads(data))
    except orjson.JSONDecodeError:
        reason = "it is no JSON"
    except ValidationError as exc:
        reason = _told(exc)
    raise RequestError(f"line {n} of the bundle cannot be used: {reason}", code="invalid_bundle")


def _told(exc: ValidationError) -> str:
    """Return which of our own fields are wrong, and nothing that the line says."""
    known = {name for line in (RecordLine, EvidenceLine, MoveLine, EndLine, ManifestLine)
             for name in line.model_fields}  # fmt: skip
    wrong = {str(part) for error in exc.errors() for part in error["loc"][1:2] if part in known}
    return f"wrong: {', '.join(sorted(wrong))}" if wrong else "it has the wrong fields"


def written(line: AnyLine) -> bytes:
    """Return *line* as it stands in a bundle, its end included: the same on every machine."""
    return dumped(line.model_dump()) + b"\n"


def next_sum(sum_: bytes, line: bytes) -> bytes:
    """Return the sum over a bundle's lines after one more."""
    return hashlib.sha256(sum_ + line).digest()
