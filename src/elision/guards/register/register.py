"""The register: which targets each tenant has, kept in SQL, and an epoch that tells of changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from elision.crypto.vault import Keys
from elision.errors import GuardError, TargetError
from elision.guards.fields import check_line
from elision.guards.lifecycle import in_force
from elision.guards.phrases.advice import advise
from elision.guards.register.audit import AuditLog
from elision.guards.register.changing import admit, settle
from elision.guards.register.database import RegisterDatabase
from elision.guards.register.epochs import Epochs
from elision.guards.register.idempotency import Once
from elision.guards.register.reasons import Reason, reasons_of
from elision.guards.register.registration import Registered, asked_of, check_new, new_id, rounded
from elision.guards.register.rows import WHOLE, find, target_of
from elision.guards.register.schema import targets
from elision.guards.register.standing import Standing
from elision.guards.register.transfer import export_lines, import_lines, unknown
from elision.guards.register.transitions import MAX_ACTOR_CHARS, NOBODY, Changed, Transitions
from elision.guards.register.writing import Writing
from elision.guards.targets import ForgetTarget, State

__all__ = ["Changed", "Register", "Registered"]


class Register(Epochs, Transitions):
    """The forget targets of all tenants, in one database.

    Thread-safe, and any number of processes may share a database. A change is on the disk when
    its call returns: the row, the epoch and the log's entry, all or nothing. Reading sees every
    change that any process has made by then, and every one that the clock has.

    Every method raises `GuardError` if the database fails, never with a phrase in the message.

    Attributes:
        audit: Who did what to which target when.
        signer: Signs what the register vouches for, with the key that the log's checkpoints bear.
        approval_required: Whether a second person must approve a target.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        keys: Path | None = None,
        clock: Callable[[], float] = time.time,
        approval_required: bool = False,
        checkpoint_file: Path | None = None,
    ) -> None:
        """Open the register, made or migrated if need be.

        Args:
            where: A path, or a URL: ``sqlite:////PATH`` or ``postgresql+psycopg://HOST/DATABASE``.
            keys: The folder of its keys, made if absent; None: ``keys`` beside an SQLite file, and
                for a server the environment (`elision.crypto.vault.Keys`).
            clock: Tells the time in seconds since 1970.
            approval_required: See `Register`.
            checkpoint_file: A second place for the log's checkpoints, best on another disk.

        Raises:
            ConfigError: If it cannot be opened, a newer Elision wrote it, or its keys are others.
            MissingExtraError: If the URL is PostgreSQL's and psycopg is not installed.
        """
        self.approval_required = approval_required
        self._clock = clock
        self._database = RegisterDatabase(where)
        try:
            beside = self._database.folder and self._database.folder / "keys"
            made = self._database.is_made()
            loaded = Keys.load(keys or beside, make=not made, failure=GuardError)
            self._database.upgrade(keys=loaded)
            self.audit = AuditLog(
                self._database, loaded, clock=clock, checkpoint_file=checkpoint_file
            )
        except BaseException:
            self._database.close()
            raise
        self._audit, self._vault, self.signer = self.audit, loaded.vault, loaded.signer
        self._standing = Standing(self._database, self._vault)

    @classmethod
    def open(cls, home: Path, **options: Any) -> Self:
        """Open ``register.db`` in *home*, both made private; takes `Register`'s options too."""
        return cls(home / "register.db", **options)

    def add(
        self,
        target: ForgetTarget,
        *,
        actor: str = NOBODY,
        idempotency_key: str | None = None,
        draft: bool = False,
    ) -> Registered:
        """Register a new target.

        It is active at once; scheduled if its ``effective_at`` lies ahead; waiting for approval if
        somebody has to approve; a draft if that is asked for.

        Args:
            target: What to keep. Id, state, requester and the time of registration are given here.
            actor: Who registers it.
            idempotency_key: Sent twice within a day with the same target, it is registered once and
                answered alike.
            draft: Whether to keep it without bringing it into force.

        Raises:
            TargetError: If the target cannot be enforced as given, or already has an id.
            ConflictError: If the idempotency key came with another target before.
        """
        [made] = self.add_many((target,), actor=actor, idempotency_key=idempotency_key, draft=draft)
        return made

    def add_many(
        self,
        targets: Sequence[ForgetTarget],
        *,
        actor: str = NOBODY,
        idempotency_key: str | None = None,
        draft: bool = False,
    ) -> tuple[Registered, ...]:
        """Register targets of one tenant, all or none; see `add`."""
        check_line(actor, "actor", most=MAX_ACTOR_CHARS)
        check_new(targets)
        if not targets:
            return ()
        advice, once = [*map(advise, targets)], None
        if idempotency_key is not None:
            asked = [draft, *(asked_of(target) for target in targets)]
            once = Once.of(idempotency_key, asked, tenant=targets[0].tenant, vault=self._vault)
        with self._audit.writing() as writing:
            if once is not None and (answers := once.recall(writing)) is not None:
                return tuple(self._repeated(writing, answer) for answer in answers)
            new = [self._new(target, writing.now, actor, draft=draft) for target in targets]
            epochs = admit(writing, self._vault, new, action="add", actor=actor)
            made = tuple(map(Registered, new, epochs, advice))
            if once is not None:
                tenant = targets[0].tenant
                once.remember(writing, [{**m.to_body(), "tenant": tenant} for m in made])
        return made

    def get(self, tenant: str, target_id: str) -> ForgetTarget:
        """Return one target in whatever state; of a purged one, what is not personal.

        Raises:
            NotFoundError: If this tenant has no target of that id.
        """
        self.epoch(tenant)
        with self._database.reading() as connection:
            return target_of(find(connection, tenant, target_id), self._vault)

    def list(
        self,
        tenant: str,
        *,
        states: Collection[State] | None = None,
        include_revoked: bool = False,
    ) -> tuple[ForgetTarget, ...]:
        """Return the tenant's targets in the order of their registration.

        Args:
            tenant: Whose.
            states: Only those in one of these states; None: the active ones.
            include_revoked: Whether to return those in every state, if no states are given.
        """
        self.epoch(tenant)
        query = WHOLE.where(targets.c.tenant == tenant).order_by(targets.c.epoch)
        if states is not None or not include_revoked:
            wanted = ("active",) if states is None else tuple(states)
            query = query.where(targets.c.state.in_(wanted))
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(target_of(row, self._vault) for row in rows)

    def active(self, tenant: str) -> tuple[ForgetTarget, ...]:
        """Return what is enforced for *tenant* now; the same object until its epoch changes.

        Read `epoch` before this, never after: then the targets are at least as new as the epoch.
        """
        return self._standing.at(tenant, self.epoch(tenant))

    def reasons(self, tenant: str, target_id: str) -> tuple[Reason, ...]:
        """Return why what was done to a target, oldest first; none once it is purged.

        Raises:
            NotFoundError: If this tenant has no target of that id.
        """
        with self._database.reading() as connection:
            return reasons_of(connection, self._vault, find(connection, tenant, target_id))

    def commitment(self, tenant: str, purpose: str, data: bytes) -> str:
        """Return HMAC-SHA256 of *data* in hex under a key of this tenant and purpose.

        It tells two equal texts alike and tells nobody which text it is, for the key stays here.
        """
        return self._vault.digest(purpose, tenant, data)

    def export(self, tenant: str) -> Iterator[dict[str, Any]]:
        """Yield every target of *tenant* in order as an object, then a signed manifest.

        What is yielded is plain text: keep it as you would the register and its keys.
        """
        return export_lines(tenant, self.list(tenant, include_revoked=True), self.signer)

    def import_(
        self,
        tenant: str,
        lines: Iterable[str | bytes | Mapping[str, Any]],
        *,
        actor: str = NOBODY,
        public_key: str | None = None,
    ) -> tuple[ForgetTarget, ...]:
        """Keep what `export` yielded, in the same states and order; all or nothing.

        Targets that are kept just so already are passed over.

        Args:
            tenant: Whose; every line must be of the same tenant.
            lines: Objects, or lines of JSON.
            actor: Who imports them.
            public_key: Whose signature the manifest must bear, in PEM; None: this register's own.

        Returns:
            The targets that are new here.

        Raises:
            TargetError: If a line is no target, or the manifest does not fit them.
            PermissionDeniedError: If a line is of another tenant.
            ConflictError: If a target of that id is kept here with another content or state.
        """
        check_line(actor, "actor", most=MAX_ACTOR_CHARS)
        given = import_lines(tenant, lines, public_key or self.audit.public_key())
        with self._audit.writing() as writing:
            settle(writing, self._vault, tenant)
            new = unknown(writing.connection, self._vault, tenant, given)
            if new:
                admit(writing, self._vault, new, action="import", actor=actor)
        return new

    def close(self) -> None:
        """Sign the log and let go of the database; may be called twice, and nothing else after."""
        self.audit.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _forget(self, tenant: str) -> None:
        self._standing.forget(tenant)

    def _new(self, target: ForgetTarget, now: float, actor: str, *, draft: bool) -> ForgetTarget:
        state: State = "draft" if draft else "pending_approval"
        if not draft and not self.approval_required:
            state = in_force(target.effective_at, now)
        if target.expires_at is not None and target.expires_at <= now:
            raise TargetError("expires_at has passed; write a later time", param="expires_at")
        return replace(
            target,
            **rounded(target),
            id=new_id(now),
            state=state,
            created_at=now,
            revoked_at=None,
            requested_by=actor,
            approved_by="",
        )

    def _repeated(self, writing: Writing, answer: dict[str, Any]) -> Registered:
        row = find(writing.connection, answer["tenant"], answer["id"])
        target = replace(target_of(row, self._vault), state=answer["state"])
        return Registered(target, answer["epoch"], tuple(answer["warnings"]), repeated=True)
