"""The laws of the house as checkers: each raises AssertionError with what was broken, and where."""

from __future__ import annotations

from elision.testing.laws.channels import recorded_logs as recorded_logs
from elision.testing.laws.composition import check_commute as check_commute
from elision.testing.laws.composition import check_composition as check_composition
from elision.testing.laws.drafts import (
    acheck_drafted_equals_plain as acheck_drafted_equals_plain,
)
from elision.testing.laws.drafts import check_drafted_equals_plain as check_drafted_equals_plain
from elision.testing.laws.engines import acheck_fails_closed as acheck_fails_closed
from elision.testing.laws.engines import acheck_restored as acheck_restored
from elision.testing.laws.engines import acheck_stream_equals_whole as acheck_stream_equals_whole
from elision.testing.laws.engines import check_fails_closed as check_fails_closed
from elision.testing.laws.engines import check_restored as check_restored
from elision.testing.laws.engines import check_stream_equals_whole as check_stream_equals_whole
from elision.testing.laws.engines import check_stream_form as check_stream_form
from elision.testing.laws.leaks import check_never_leaks as check_never_leaks
from elision.testing.laws.leaks import check_speaks_of_nothing as check_speaks_of_nothing
from elision.testing.laws.recipes import awkward_rows as awkward_rows
from elision.testing.laws.recipes import check_adjust as check_adjust
from elision.testing.laws.recipes import check_neutral as check_neutral
from elision.testing.laws.recipes import check_sessions as check_sessions
