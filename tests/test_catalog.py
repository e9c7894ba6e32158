"""Models by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elision.catalog import ALIASES, Folder, HubId, resolve
from elision.errors import NotFoundError

WORD = st.from_regex(r"[A-Za-z0-9](?:[_.-]?[A-Za-z0-9])*", fullmatch=True)


@given(name=st.text())
def test_every_name_is_one_of_three_things_or_not_found(name: str) -> None:
    try:
        found = resolve(name)
    except NotFoundError:
        assert name not in ALIASES
    else:
        assert isinstance(found, HubId | Folder) or found is ALIASES[name]


@given(org=WORD, name=WORD)
def test_two_words_and_a_slash_are_a_hub_id_even_where_such_a_folder_lies(
    org: str, name: str
) -> None:
    assert resolve(f"{org}/{name}") == HubId(f"{org}/{name}")


@pytest.mark.parametrize("name", ["./m", "../m", "/m", "~/m", ".", "..", "./a/b/c"])
def test_a_path_is_a_folder(name: str) -> None:
    assert resolve(name) == Folder(Path(name).expanduser())


@pytest.mark.parametrize("name", ["smollm2", "SmolLM2-135M", "a/b/c", "a/", "", "a b/c", "org/.."])
def test_an_unknown_name_is_answered_with_the_aliases_and_the_other_forms(name: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        resolve(name)
    said = str(raised.value)
    assert raised.value.code == "model_not_found"
    assert all(alias in said for alias in ALIASES)
    assert "org/name" in said
    assert "./folder" in said


@pytest.mark.parametrize("alias", ALIASES.values(), ids=str)
def test_every_alias_is_pinned_whole_and_licensed(alias: object) -> None:
    alias = next(a for a in ALIASES.values() if a is alias)
    assert ALIASES[alias.name] is alias
    assert re.fullmatch(r"[0-9a-f]{64}", alias.source.sha256)
    assert alias.source.file.endswith(f"-{alias.source.version}-py3-none-any.whl")
    assert alias.licence
    assert alias.summary
    assert alias.source.n_bytes < alias.peak_bytes
    assert alias.n_bytes < alias.peak_bytes
    assert resolve(alias.name) is alias
