"""Tool calls as they arrive in pieces, each piece with its index: some servers leave it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from elision.errors import UpstreamError

_MOST: Final = 4096


def written(function: Any) -> Any:
    """Return what is called, its arguments as JSON: some servers send the object itself."""
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if isinstance(arguments, str | None):
        return function
    return function | {"arguments": orjson.dumps(arguments).decode()}


class Calls:
    """Counts the tool calls of one choice. Lives for one response."""

    def __init__(self) -> None:
        self._n = 0
        self._id: object = None

    def indexed(self, calls: object) -> list[dict[str, Any]]:
        """Return *calls*, each with an index.

        One that has none begins a new call if its id is new, or, without an id, if it names a
        function; else it goes on with the last.

        Raises:
            UpstreamError: If they are no calls.
        """
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise UpstreamError("the upstream sent tool calls in a form that is not known")
        return [self._indexed(call) for call in calls]

    def _indexed(self, call: dict[str, Any]) -> dict[str, Any]:
        index = call.get("index")
        if type(index) is not int:
            index = self._n if self._begins(call) else self._n - 1
        if not 0 <= index < _MOST:
            raise UpstreamError("the upstream numbers its tool calls in a way that is not known")
        self._n = max(self._n, index + 1)
        self._id = call.get("id") or self._id
        if "function" in call:
            call = call | {"function": written(call["function"])}
        # First, so that it is there whatever becomes of the rest.
        return {"index": index} | call | {"index": index}

    def _begins(self, call: Mapping[str, Any]) -> bool:
        if self._n == 0 or call.get("id"):
            return self._n == 0 or call["id"] != self._id
        function = call.get("function")
        return isinstance(function, dict) and bool(function.get("name"))
