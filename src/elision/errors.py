"""Every error that Elision raises on purpose.

::

    ElisionError
    ├── ConfigError            (ValueError)   a setting or a recipe cannot be used as given
    ├── MissingExtraError      (ImportError)  an optional package is not installed
    ├── RequestError           (ValueError)   the request cannot be served as asked: HTTP 400
    │   ├── ContextLengthError                the prompt does not fit the model
    │   └── CapabilityError                   the engine cannot do what a method needs
    ├── AuthenticationError                   no key, or a wrong one: HTTP 401
    ├── PermissionDeniedError                 the key does not reach that far: HTTP 403
    ├── NotFoundError          (LookupError)  no such model, profile or target: HTTP 404
    ├── ConflictError                         not in this state, or another request's key: HTTP 409
    ├── BusyError                             the queue is full, try again later: HTTP 429
    ├── TargetError            (ValueError)   a forget target that cannot be registered: HTTP 400
    ├── LexiconError           (ValueError)   a tokenizer whose bytes cannot be told
    ├── PullError                             a model could not be fetched or verified
    ├── UpstreamError                         the server behind a remote engine failed: HTTP 502
    │   └── UpstreamTimeoutError (TimeoutError)  it did not answer in time: HTTP 504
    ├── GuardError                            a guard broke; the answer was stopped: HTTP 500
    ├── StoreError                            a database failed, or what it keeps is damaged: 500
    ├── EngineError                           an engine broke: HTTP 500
    └── ShapeError             (ValueError)   two tensors that belong together have different shapes

Messages read *what, found, wanted, what to do*. They never carry prompt text, answer text or a
target's name; identifiers and numbers only.
"""

from __future__ import annotations


class ElisionError(Exception):
    """Base of every error that Elision raises on purpose.

    Attributes:
        status: The HTTP status that the gateway answers with.
        kind: OpenAI's ``error.type`` for it.
        code: OpenAI's ``error.code``, or None.
        param: The field of the request at fault, or None.
        retryable: Whether the same request may succeed later.
    """

    status: int = 500
    kind: str = "server_error"
    code: str | None = None
    param: str | None = None
    retryable: bool = False


class ConfigError(ElisionError, ValueError):
    """A setting or a recipe cannot be used as given."""


class MissingExtraError(ElisionError, ImportError):
    """An optional package is not installed.

    Attributes:
        extra: The extra that brings it.
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(
            f"{package!r} is not installed; it comes with: pip install 'elision[{extra}]'"
        )
        self.extra = extra


class RequestError(ElisionError, ValueError):
    """The caller's request cannot be served as asked.

    Attributes:
        param: The field at fault, in the dotted form of OpenAI's envelope.
    """

    status = 400
    kind = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code if code is not None else type(self).code


class ContextLengthError(RequestError):
    """The prompt, or the prompt with the tokens asked for, does not fit the model."""

    code = "context_length_exceeded"


class CapabilityError(RequestError):
    """The engine cannot do what a method needs.

    Attributes:
        method: The intervention or request field that asked.
        engine: The engine's name.
        missing: The capability it lacks.
    """

    code = "capability_missing"

    def __init__(self, method: str, *, engine: str, missing: str, param: str | None = None) -> None:
        super().__init__(
            f"{method!r} needs {missing}, which the engine {engine!r} lacks; "
            "leave it out or choose an engine that has it",
            param=param,
        )
        self.method = method
        self.engine = engine
        self.missing = missing


class AuthenticationError(ElisionError):
    """No key, or a wrong one."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class PermissionDeniedError(ElisionError):
    """The key does not reach that far."""

    status = 403
    kind = "permission_error"
    code = "permission_denied"


class NotFoundError(ElisionError, LookupError):
    """No such model, profile, route or target."""

    status = 404
    kind = "not_found_error"

    def __init__(self, message: str, *, code: str = "not_found", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class ConflictError(ElisionError):
    """The object is not in a state that allows this, or an idempotency key names another request.

    Attributes:
        code: ``illegal_transition``, ``idempotency_conflict`` or ``target_exists``.
    """

    status = 409
    kind = "conflict_error"

    def __init__(self, message: str, *, code: str = "illegal_transition") -> None:
        super().__init__(message)
        self.code = code


class BusyError(ElisionError):
    """The queue is full.

    Attributes:
        retry_after_s: Seconds after which a new try is worth while.
    """

    status = 429
    kind = "rate_limit_error"
    code = "queue_full"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TargetError(ElisionError, ValueError):
    """A forget target cannot be registered as given."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_target"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class LexiconError(ElisionError, ValueError):
    """The bytes that a tokenizer's tokens write cannot be told, so no guard can stand on it."""


class PullError(ElisionError):
    """A model could not be fetched or verified; nothing was left behind."""


class UpstreamError(ElisionError):
    """The server behind a remote engine failed.

    Attributes:
        upstream_status: The HTTP status it answered with, or None if it did not answer.
    """

    status = 502
    kind = "upstream_error"
    code = "upstream_failed"

    def __init__(
        self, message: str, *, upstream_status: int | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status
        self.retryable = retryable


class UpstreamTimeoutError(UpstreamError, TimeoutError):
    """The server behind a remote engine did not answer in time."""

    status = 504
    code = "upstream_timeout"


class GuardError(ElisionError):
    """A guard broke, so the answer was stopped: nothing passes a broken guard."""

    kind = "guard_error"
    code = "guard_failed_closed"


class StoreError(ElisionError):
    """A database failed, or what it keeps is damaged; nothing was written."""

    code = "store_failed"


class EngineError(ElisionError):
    """An engine broke in the middle of a request."""

    code = "engine_failed"


class ShapeError(ElisionError, ValueError):
    """Two tensors that belong together have different shapes.

    Attributes:
        want: The shape that was called for.
        got: The shape that arrived.
    """

    def __init__(self, what: str, *, want: tuple[int, ...], got: tuple[int, ...]) -> None:
        super().__init__(f"{what} has shape {got}, not {want}")
        self.want = want
        self.got = got
