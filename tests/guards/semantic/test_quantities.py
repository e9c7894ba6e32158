"""Numbers and dates are compared as what they are, not as they are written."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.guards.semantic.quantities import is_trivial, quantities

FORMS = (
    "{d}/{m}/{y}", "{m}/{d}/{y}", "{y}-{m:02}-{d:02}", "{d:02}.{m:02}.{y}", "{month} {d}, {y}",
    "{month} {d} {y}", "{d} {month} {y}", "the {d}th of {month}, {y}", "{mon}. {d}, {y}",
    "{d} {mon} {y}",
)  # fmt: skip
days = st.dates(min_value=date(1000, 1, 1), max_value=date(2999, 12, 31))


@given(days, st.sampled_from(FORMS))
def test_a_date_is_found_in_every_form(day: date, form: str) -> None:
    month = day.strftime("%B")
    text = form.format(d=day.day, m=day.month, y=f"{day.year:04}", month=month, mon=month[:3])
    found = quantities(f"She was born on {text}, it is said.")
    assert day.isoformat() in found.stated
    assert {day.isoformat()[:7], f"-{day.isoformat()[4:]}", f"{day.year}"} <= found.implied
    assert quantities(day.isoformat()).common(found)


@given(days, days)
def test_two_dates_have_something_in_common_only_if_they_are_one(one: date, two: date) -> None:
    common = quantities(one.isoformat()).common(quantities(two.isoformat()))
    assert bool(common) == (one == two)


@given(st.integers(0, 10**9))
def test_grouped_digits_are_the_same_number(number: int) -> None:
    plain = quantities(f"it is {number} in all").stated
    assert plain == {str(number)}
    assert quantities(f"it is {number:,} in all").stated == plain
    in_arabic = "".join(chr(0x660 + int(digit)) for digit in str(number))
    assert quantities(f"it is {in_arabic} in all").stated == plain


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("the fifth of November nineteen ninety-one", {"1991-11-05"}),
        ("05/11/1991", {"1991-11-05", "1991-05-11"}),
        ("5/11/91", {"1991-11-05", "1991-05-11", "2091-11-05", "2091-05-11"}),
        ("31/12/1999", {"1999-12-31"}),
        ("in November of 1991", {"1991-11"}),
        ("every November 5th", {"--11-05"}),
        ("one thousand two hundred and thirty-four", {"1234"}),
        ("two thousand and five", {"2005"}),
        ("twenty-one of nineteen hundred", {"21", "1900"}),
        ("from 1991-2003", {"1991", "2003"}),
        ("3.50 or 3.5 or 007", {"3.5", "7"}),
        ("ring (212) 555-0199", {"2125550199"}),
        ("ring 212 555 0199", {"2125550199"}),
        ("ISBN 978-3-16-148410-0", {"9783161484100"}),
        ("he may go, she will", set()),
        ("99/99/1999", {"99991999"}),
    ],
)
def test_what_a_text_states(text: str, stated: set[str]) -> None:
    assert quantities(text).stated == stated


@pytest.mark.parametrize(
    ("one", "two", "common"),
    [
        ("born 05/11/1991", "born in 1991", {"1991"}),
        ("born in 1991", "born on November 5, 1991", {"1991"}),
        ("born in November 1991", "born 1991-11-05", {"1991-11"}),
        ("on 5 November", "on 1991-11-05", {"--11-05"}),
        ("born 1991-11-05", "died 1991-03-02", set()),
        ("born 1991-11-05", "in November 1992", set()),
    ],
)
def test_a_date_and_what_follows_from_it_have_that_in_common(
    one: str, two: str, common: set[str]
) -> None:
    assert quantities(one).common(quantities(two)) == common
    assert quantities(two).common(quantities(one)) == common


def test_small_numbers_tell_nothing_by_themselves() -> None:
    assert is_trivial("2")
    assert is_trivial("99")
    assert not is_trivial("99", below=10)
    assert not is_trivial("1991")
    assert not is_trivial("3.5")
    assert not is_trivial("--11-05")
