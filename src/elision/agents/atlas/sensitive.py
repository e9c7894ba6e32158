"""Secrets and personal data: whether a text holds any, and the text with them masked."""

from __future__ import annotations

import re
from typing import Final

_SECRETS: Final = (
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?s:.)*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|[\sA-Za-z0-9+/=]*)",
    r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}\b",
    r"\bgh[oprsu]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}",
    r"\b(?:sk|pk|rk)[-_][A-Za-z0-9][\w-]{18,}",
    r"\bxox[abeoprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[\w-]{30,}",
    r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}",
    r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*",
    r"(?i:\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{16,}",
    r"\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://[^\s:/@]{1,64}:[^\s@/]{1,128}@",
    r"(?i:\b(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|(?:api|access|private|client|account|"
    r"auth|encryption|signing|secret)[ _-]?(?:key|token|secret))"
    r"(?:\s*[:=]\s*|\s+(?:is|are|was)\s+)[\"'`]?)(?=[^\s\"'`]*[\d@#$%^&*!+])[^\s\"'`,;]{6,}",
)
_SECRET: Final = re.compile("|".join(f"(?:{code})" for code in _SECRETS))
EMAIL: Final = re.compile(
    r"(?<![\w.%+'-])[\w.%+'-]+(?:@|\s?[(\[{]at[)\]}]\s?)"
    r"(?:[A-Za-z0-9-]{1,63}(?:\.|\s?[(\[{]dot[)\]}]\s?)){1,8}[A-Za-z]{2,24}\b",
    re.IGNORECASE,
)
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?:[ -]?[A-Z0-9]{1,3})?\b")
_CARD: Final = re.compile(
    r"(?<!\d)(?:\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}|\d{4}[ -]\d{6}[ -]\d{5}|\d{13,19})(?!\d)"
)
_SOCIAL: Final = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_PHONE: Final = re.compile(
    r"(?<![\w+.-])(?:\+"
    r"|00)\d{1,3}[ ./-]?(?:\(\d{1,5}\)[ ./-]?)?\d{2,5}(?:[ ./-]?\d{2,5}){1,4}(?!\w)"
    r"|(?<![\w+.-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"
)
MASK: Final = "[masked]"


def holds_secret(text: str) -> bool:
    """Return whether *text* holds what opens something: a key, a token, a password by its name."""
    return _SECRET.search(text) is not None


def holds_personal(text: str) -> bool:
    """Return whether *text* holds a bank account, card, social security or telephone number.

    Accounts and cards are believed only if their check digits hold. E-mail addresses are asked for
    by themselves: see `EMAIL`.
    """
    return (
        any(is_iban(match[0]) for match in _IBAN.finditer(text))
        or any(is_card(match[0]) for match in _CARD.finditer(text))
        or _SOCIAL.search(text) is not None
        or _PHONE.search(text) is not None
    )


def masked(text: str) -> str:
    """Return *text* with secrets, e-mail addresses and personal numbers as `MASK`."""
    text = EMAIL.sub(MASK, _SECRET.sub(MASK, text))
    text = _IBAN.sub(lambda match: MASK if is_iban(match[0]) else match[0], text)
    text = _CARD.sub(lambda match: MASK if is_card(match[0]) else match[0], text)
    return _PHONE.sub(MASK, _SOCIAL.sub(MASK, text))


def is_iban(number: str) -> bool:
    """Return whether the check digits of an account number hold.

    Source:
        ISO 13616: the number, its first four characters moved behind the rest, letters as 10 to 35,
        leaves 1 when divided by 97.
    """
    plain = re.sub(r"[ -]", "", number).upper()
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


def is_card(number: str) -> bool:
    """Return whether a card's check digit holds.

    Source:
        ISO/IEC 7812-1, annex B (Luhn).
    """
    digits = [int(c) for c in number if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0
