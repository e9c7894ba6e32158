"""The write scan: what must not enter a learning memory without somebody having looked at it.

A filter, not a proof. It knows how injected orders are usually worded, in English; it does not
understand them. An order that is phrased as plain advice passes, so what it lets through is still
shown to models as data only, withheld at random, and demoted if it harms.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from unicodedata import category, normalize

from elision.agents.atlas.orders import orders_the_agent
from elision.agents.atlas.sensitive import EMAIL, holds_personal, holds_secret
from elision.contract import Screen
from elision.guards.detection.canonical import L1
from elision.guards.detection.decoders import CERTAIN, PLAIN, decode, plainness, readings

LONGEST: Final = 4_000
"""Characters that are looked at; a longer text is a finding by itself."""


class Code(StrEnum):
    """What a scan found."""

    ORDER = "order"
    """A phrase that gives the agent, its teacher or its judge orders."""
    LINK = "link"
    EMAIL = "email"
    PATH = "path"
    COMMAND = "command"
    FENCE = "fence"
    """A delimiter of prompts: of our advice block, of a chat template, a role at a line's head."""
    ENCODED = "encoded"
    SECRET = "secret"  # noqa: S105 -- a code
    PERSONAL = "personal"
    INVISIBLE = "invisible"
    FORGOTTEN = "forgotten"
    """What somebody asked to be forgotten; see `Screen`."""
    LONG = "long"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What an operator lets advice name.

    Attributes:
        hosts: ``example.org``: it and what lies below it.
        emails: Whole addresses, or ``@example.org``.
        paths: Beginnings that end at a separator: ``/api/v1`` allows ``/api/v1/users``.
        commands: First words of commands: ``curl``.
    """

    hosts: frozenset[str] = frozenset()
    emails: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    commands: frozenset[str] = frozenset()


NOTHING: Final = Allowed()

_TOP: Final = (
    "com|net|org|io|ai|app|dev|info|biz|co|me|tv|xyz|online|site|shop|top|club|link|click|cloud"
    "|tech"
    "|store|live|ru|cn|de|uk|fr|nl|eu|ch|at|it|es|pl|us|in|jp|br|au|ca|onion|gov|edu|ly|gg|to|cc"
)
_LINK: Final = re.compile(
    r"\b(?:h(?:tt|xx)ps?|ftp|file|wss?|data|javascript|mailto)(?::|\[:\])(?://)?([^\s/\"'<>]+)"
    r"|(?<![\w@.-])((?:[\w-]{1,63}(?:\.|\s?[(\[{](?:dot|\.)[)\]}]\s?))+"
    rf"(?:{_TOP}))(?![\w-])"
    r"|(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3}(?=[:/]\d))"
)
_DOT: Final = re.compile(r"\s?[(\[{](?:dot|\.)[)\]}]\s?")
_PATH: Final = re.compile(
    r"(?<![\w:/.~<])(?:~|\.{1,2})?(?:/[\w.@+-]+){2,}/?|(?<![\w:/.<])(?:~|\.\.)/[\w.-]*"
    r"|(?<!\w)[a-z]:\\[^\s\"']*|\\\\[\w.-]+\\[^\s\"']+|%(?:appdata|temp|userprofile|systemroot)%"
    r"|(?<![\w/])/(?:etc|tmp|var|home|root|usr|bin|proc|dev)\b"
)
_COMMAND: Final = re.compile(
    r"\b(rm) -\w+|\b(sudo|chmod|chown|powershell|curl|wget|netcat|scp|rsync|mkfs|crontab|certutil"
    r"|schtasks|mshta|rundll32|regsvr32|iex)\b|\b(bash|sh|zsh|cmd|python3?|perl|ruby|node) (?:-c"
    r"|-e|/c)\b"
    r"|\b(nc) -|\b(eval|exec|os\.system|subprocess\.\w+|__import__|popen) ?\(|(\$\()"
    r"|\| ?(sh|bash|zsh|sudo)\b|\b(pip3?|npm|apt(?:-get)?|brew|gem|cargo) (?:-\S+ )*install\b"
    r"|(<script)\b|\b(drop|truncate|alter) (?:table|database|schema|view)\b|\b(delete) from\b"
    r"|\b(insert) into\b|\b(update) \S+ set\b|\b(grant|revoke) \S+ on\b|\b(git) (?:push|clone"
    r"|reset)\b"
    r"|(\bxp_cmdshell)\b|\b(ssh) \S+@|\b(format) [a-z]:"
)
_FENCE: Final = re.compile(
    r"<(?:\s*<)+|>(?:\s*>){2,}|<\s*\|?\s*/?\s*(?:\|\s*)?(?:im_start|im_end|eot_id|endoftext|eos"
    r"|bos|s"
    r"|sys|system|user|assistant|human|ai|tool|tool_call|tool_calls|function_calls?|tool_response"
    r"|information|important|instructions?|inst|prompt|context|admin|advice|start_of_turn"
    r"|end_of_turn"
    r"|begin_of_text|start_header_id|end_header_id|think)\b[^<>\n]{0,40}>"
    r"|<\||\|>|\[/?\s*(?:inst|sys|system|assistant|user)\b[^\]\n]{0,20}\]"
    r"|#{2,}\s*\(?\s*(?:system|user|assistant|human|instructions?|response|new|input|output)\b"
    r"|^[\s>*_-]*(?:system|assistant|user|human|ai|tool|developer|function)[\s*_]*:"
    r"|`{3}|~{3}|-{5}\s*(?:begin|end)\b|={5,}|\b(?:end|begin|start) of (?:the )?(?:advice|prompt|"
    r"instructions?|system|context|conversation|user)\b|\bend (?:student|teacher) playbook\b"
    r"|\badvice [0-9a-f]{8}\b",
    re.IGNORECASE | re.MULTILINE,
)
_BLOB: Final = re.compile(
    r"(?<![\w+/=-])(?=[\w+/-]*[a-z])(?=[\w+/-]*[A-Z])(?=[\w+/-]*\d)[A-Za-z0-9+/_-]{24,}={0,2}"
    r"|(?<![\w+/])[A-Za-z0-9+/]{20,}={1,2}(?!\w)|\b(?:[0-9a-fA-F]{2}){16,}\b"
    r"|(?:%[0-9A-Fa-f]{2}){4,}|(?:\\x[0-9A-Fa-f]{2}){4,}|(?:\\u[0-9A-Fa-f]{4}){3,}"
    r"|(?:&#x?\w{1,6};){3,}"
    r"|(?<![01])[01]{8}(?:\s?[01]{8}){3,}"
)
_FILLERS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")


def scan(
    text: str, *, tenant: str, screen: Screen | None = None, allowed: Allowed = NOTHING
) -> tuple[Code, ...]:
    """Return what of *text* must be looked at before it is remembered; empty if nothing.

    Args:
        text: All that an entry says: what is split over two fields is found if they are joined.
        tenant: Whose forget targets count.
        screen: Asks them; None asks nobody.
        allowed: Links, addresses, paths and commands that are no finding.

    Returns:
        Codes in the order of `Code`, each once; never a word of the text.
    """
    found = {Code.LONG} if len(text) > LONGEST else set[Code]()
    text = text[:LONGEST]
    plain = normalize("NFKC", text)
    found.update(_named(plain, allowed))
    if _is_invisible(text):
        found.add(Code.INVISIBLE)
    if _FENCE.search(plain) or _FENCE.search(_without_invisible(plain)):
        found.add(Code.FENCE)
    hidden = [item.text for item in decode(text, decoders=CERTAIN).texts]
    if _BLOB.search(text) or any(plainness(item) >= PLAIN for item in hidden):
        found.add(Code.ENCODED)
    said = [text, text[::-1], codecs.encode(text, "rot13"), *hidden, *readings(text)]
    if any(orders_the_agent(L1(one)) for one in said):
        found.add(Code.ORDER)
    if screen is not None and not all(screen.may_write(tenant, one) for one in said):
        found.add(Code.FORGOTTEN)
    return tuple(code for code in Code if code in found)


def _named(text: str, allowed: Allowed) -> Iterator[Code]:
    """Yield the codes of what *text* names: links, addresses, paths, commands, secrets, people."""
    low = text.casefold()
    addresses = [_DOT.sub(".", address) for address in EMAIL.findall(low)]
    if any(not _is_known_address(address, allowed) for address in addresses):
        yield Code.EMAIL
    hosts = (_DOT.sub(".", next(filter(None, groups))) for groups in _LINK.findall(low))
    if any(not _lies_below(host.partition(":")[0], allowed.hosts) for host in hosts):
        yield Code.LINK
    if any(not _begins(path, allowed.paths) for path in _PATH.findall(_LINK.sub(" ", low))):
        yield Code.PATH
    commands = (next(filter(None, groups)) for groups in _COMMAND.findall(low))
    if any(command not in allowed.commands for command in commands):
        yield Code.COMMAND
    if holds_secret(text):
        yield Code.SECRET
    if holds_personal(text):
        yield Code.PERSONAL


def _is_known_address(address: str, allowed: Allowed) -> bool:
    return address in allowed.emails or f"@{address.rpartition('@')[2]}" in allowed.emails


def _lies_below(host: str, hosts: Iterable[str]) -> bool:
    return any(host == known or host.endswith(f".{known}") for known in hosts)


def _begins(path: str, paths: Iterable[str]) -> bool:
    # Two dots climb out of whatever was allowed.
    return ".." not in path and any(
        path == known or path.startswith(known.rstrip("/\\") + sep)
        for known in paths
        for sep in "/\\"
    )


def _is_invisible(text: str) -> bool:
    """Return whether *text* holds what nothing shows; joiners inside Asian words are shown."""
    return any(
        _hides(char) and not (char in "\u200c\u200d" and at and ord(text[at - 1]) >= 0x0590)
        for at, char in enumerate(text)
    )


def _hides(char: str) -> bool:
    if char in "\t\n\r\ufe0f":
        return False
    chosen = 0xFE00 <= ord(char) < 0xFE0F or 0xE0100 <= ord(char) <= 0xE01EF
    return chosen or char in _FILLERS or category(char) in {"Cc", "Cf", "Co", "Cn", "Cs"}


def _without_invisible(text: str) -> str:
    return "".join(char for char in text if not _hides(char))
