"""A learning entry: what to do, when, and what that is good for; kept as a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from elision.errors import ConfigError, RequestError, StoreError
from elision.memory.learning.cues import Cue
from elision.memory.learning.packing import Advice, line
from elision.memory.learning.states import State
from elision.memory.records import Draft, Record, Scope, Trust, check_label

if TYPE_CHECKING:
    from elision.memory.index.vectors import Vectors

Audience: TypeAlias = Literal["student", "teacher", "judge"]
Purpose: TypeAlias = Literal["guidance", "plan_seed", "failure_mode", "stop_rule"]

ADVICE: Final = "advice"
"""The kind of an entry's record."""
LONGEST: Final[Mapping[str, int]] = {"imperative": 120, "effect": 200, "limits": 250, "body": 600}
"""Characters of each text (atlas_memory.md 2.1)."""
LONGEST_HANDLE: Final = 128
_TEXTS: Final = (*LONGEST, "handle", "audience", "purpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryDraft:
    """What is to be advised. Checked when made.

    Attributes:
        audience: Who is to see it.
        purpose: What kind of advice it is.
        cue: When it applies.
        imperative: What to do, 1 to 120 characters.
        handle: The tool that following it would call; None: following it cannot be seen.
        args: Arguments that such a call would have, among others; needs a handle.
        effect: What that is good for, at most 200 characters.
        limits: When not to, at most 250.
        body: Anything more, at most 600; for plans, and for those who read the playbook. Never
            rendered.

    Raises:
        RequestError: If a field is not as said.
    """

    imperative: str = field(repr=False)
    cue: Cue
    audience: Audience = "student"
    purpose: Purpose = "guidance"
    handle: str | None = field(default=None, repr=False)
    args: Mapping[str, Any] | None = field(default=None, repr=False)
    effect: str = field(default="", repr=False)
    limits: str = field(default="", repr=False)
    body: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        _check_choice("audience", self.audience, get_args(Audience))
        _check_choice("purpose", self.purpose, get_args(Purpose))
        for name, most in LONGEST.items():
            _check_text(name, getattr(self, name), most)
        if not self.imperative.strip():
            raise RequestError("an entry says nothing to do", param="imperative")
        if self.handle is not None:
            check_label(self.handle, "handle", most=LONGEST_HANDLE)
        if self.args is not None and (self.handle is None or not isinstance(self.args, Mapping)):
            raise RequestError("args are those of a tool; name its handle", param="args")

    @property
    def text(self) -> str:
        """What is encoded: imperative, effect and cue, a line each; not the body."""
        return "\n".join(part for part in (self.imperative, self.effect, self.cue.pattern) if part)

    def is_followed_by(self, tool: str | None, args: Mapping[str, Any]) -> bool:
        """Return whether an action does what the entry says; never, without a handle.

        Args:
            tool: That the action called.
            args: That it was called with: they must hold `args`, at any depth of objects.
        """
        return self.handle is not None and tool == self.handle and _holds(args, self.args or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(EntryDraft):
    """An entry as it stands; a value, never changed in place.

    Attributes:
        id: Its record's.
        scope: Where it lies; exact.
        state: Where it stands.
        trust: The least of what it was made from.
        version: From 1; rises when its words change or it is counted afresh, and with it the
            evidence begins anew. Not its record's version, which rises with each move too.
        created_at: Seconds since 1970.
        updated_at: Likewise; of its last change or move.
        vector: Of `text`, shape ``(D,)``; None if not read, or the store has no encoder.
    """

    id: str
    scope: Scope = field(repr=False)
    state: State
    trust: Trust
    version: int
    created_at: float
    updated_at: float
    vector: Vectors | None = field(default=None, repr=False, compare=False)

    def advice(self, *, value: float, token_len: int) -> Advice:
        """Return what packing needs to know of it."""
        return Advice(
            id=self.id,
            version=self.version,
            cue=self.cue.pattern,
            imperative=self.imperative,
            effect=self.effect,
            limits=self.limits,
            token_len=token_len,
            value=value,
            vector=self.vector,
        )

    @property
    def line(self) -> str:
        """The line that shows it, of which `Advice.token_len` counts the tokens."""
        return line(self.advice(value=0.0, token_len=1))


def value_of(draft: EntryDraft, version: int) -> dict[str, Any]:
    """Return what a record keeps of *draft*, as JSON."""
    cue = {"type": draft.cue.type, "pattern": draft.cue.pattern, "min_sim": draft.cue.min_sim}
    texts = {name: getattr(draft, name) for name in _TEXTS}
    args = None if draft.args is None else dict(draft.args)
    return {"cue": cue, "args": args, "version": version, **texts}


def to_record(
    draft: EntryDraft,
    *,
    key: str,
    trust: Trust = Trust.USER,
    subjects: frozenset[str] = frozenset(),
    parents: tuple[str, ...] = (),
) -> Draft:
    """Return the record that keeps *draft* as a candidate, in version 1; see `Draft`."""
    return Draft(
        text=draft.text,
        value=value_of(draft, 1),
        key=key,
        kind=ADVICE,
        state=State.CANDIDATE,
        trust=trust,
        subjects=subjects,
        parents=parents,
    )


def from_record(record: Record, vector: Vectors | None = None) -> Entry:
    """Return the entry that *record* keeps.

    Raises:
        StoreError: If it keeps none, or a damaged one. The message holds nothing of it.
    """
    try:
        kept = dict(record.value)
        draft = {name: kept[name] for name in (*_TEXTS, "args")}
        version = kept["version"]
        if record.kind != ADVICE or type(version) is not int or version < 1:
            raise ValueError
        return Entry(
            **draft,
            cue=Cue(**kept["cue"]),
            id=record.id,
            scope=record.scope,
            state=State(record.state),
            trust=record.trust,
            version=version,
            created_at=record.created_at,
            updated_at=record.updated_at,
            vector=vector,
        )
    except (KeyError, TypeError, ValueError, ConfigError, RequestError):
        # The cause would quote the record.
        raise StoreError(f"the record {record.id!r} keeps no readable entry; erase it") from None


def _check_choice(param: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise RequestError(f"an entry's {param} is one of {', '.join(choices)}", param=param)


def _check_text(param: str, text: str, most: int) -> None:
    if not isinstance(text, str) or len(text) > most:
        raise RequestError(f"an entry's {param} has at most {most} characters", param=param)
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise RequestError(f"an entry's {param} holds half a character", param=param)


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            name in found and _holds(found[name], one) for name, one in wanted.items()
        )
    # JSON tells 1 from true; Python does not.
    return isinstance(found, bool) is isinstance(wanted, bool) and bool(found == wanted)
