"""How log lines are written: as text or as JSON, each with its request's id, none with content."""

from __future__ import annotations

import logging
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

import orjson
import structlog
from structlog.contextvars import get_contextvars

_Raised: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)
_as_text = structlog.processors.KeyValueRenderer(key_order=["event"])


def _as_both(
    logger: object, name: str, facts: MutableMapping[str, Any]
) -> tuple[tuple[Any], dict[str, Any]]:
    """Return the line as text, for any handler, and beside it the facts, for one of ours."""
    return (_as_text(logger, name, {**facts}),), {"extra": {"facts": {**facts}}}


# Wrapped here, not configured globally: whoever embeds the application keeps his own logging.
gateway_log = structlog.wrap_logger(
    logging.getLogger("elision.gateway"),
    processors=[structlog.stdlib.filter_by_level, _as_both],
    wrapper_class=structlog.stdlib.BoundLogger,
)
"""Where the boundary writes its line per request."""


class TextLines(logging.Formatter):
    """Writes lines for people; those of a request that do not name it end with its id.

    Of an exception only its type and the places are told: messages of foreign ones may quote.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line."""
        line, request_id = super().formatMessage(record), get_contextvars().get("request_id")
        return line if request_id is None or hasattr(record, "facts") else f"{line} id={request_id}"

    def formatException(self, ei: _Raised) -> str:  # noqa: N802
        """Return what was raised and where, not what it said."""
        return "\n".join((*_places(ei[2]), _kind(ei)))


class JsonLines(logging.Formatter):
    """Writes one JSON object a line: time, level, logger, event, the request's id, its facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts: dict[str, Any] = dict(getattr(record, "facts", None) or {})
        request_id = facts.pop("id", None) or get_contextvars().get("request_id")
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": facts.pop("event", None) or record.getMessage(),
        }
        if request_id is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line |= {"exception": _kind(record.exc_info), "places": _places(record.exc_info[2])}
        return orjson.dumps(line | facts, default=_named).decode()


FORMATTERS: Final = {"text": TextLines, "json": JsonLines}
LogFormat: TypeAlias = Literal["text", "json"]


def _named(thing: object) -> str:
    return type(thing).__name__


def _kind(raised: _Raised) -> str:
    return "" if raised[0] is None else raised[0].__name__


def _places(trace: TracebackType | None) -> list[str]:
    return [f"{at.filename}:{at.lineno} in {at.name}" for at in traceback.extract_tb(trace)]
