"""The report of `elision guard attack`: counts and rates, never a phrase."""

from __future__ import annotations

import pytest

from elision.errors import TargetError
from elision.evaluation.attack_report import attack_report
from elision.guards.targets import ForgetTarget, Phrase


async def test_a_users_own_target_is_attacked_and_its_phrase_is_not_told() -> None:
    target = ForgetTarget(id="t-1", title="x", phrases=(Phrase(text="Zyxomma Petiolatum"),))

    report = await attack_report(target, quick=True)

    table = "\n".join(report.lines())
    assert report.holds
    assert report.leaks() == ()
    assert "xomma" not in (table + repr(report) + repr(report.to_body())).lower()
    assert {"no guard", "filter", "prompt", "guard"} <= set(report.report.contenders)
    assert any(row["no guard"]["share"] == 1 for row in report.rows())


async def test_a_target_without_hard_phrases_cannot_be_attacked() -> None:
    soft = ForgetTarget(title="x", phrases=(Phrase(text="Zyxomma", mode="soft"),))

    with pytest.raises(TargetError):
        await attack_report(soft)
