from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from elision.agents.langchain_tools import ManageMemory, MemoryTool, SearchMemory
from elision.encoders import HashingEncoder
from elision.memory.records import Draft, Scope, Trust
from elision.memory.store import Store

MEMORIES = Scope("default", ("memories",))
ELSEWHERE = Scope("default", ("other",))


class Forbidding:
    def may_write(self, tenant: str, text: str) -> bool:
        return "Annabel" not in text

    may_read = may_write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    options: dict[str, Any] = {"encoder": HashingEncoder(64), "screen": Forbidding()}
    with Store(tmp_path / "memory.db", **options) as store:
        yield store


class SearchSuite:
    @pytest.fixture(autouse=True)
    def _store(self, store: Store) -> None:
        self.store = store
        store.put(MEMORIES, Draft(text="likes plums"))

    @property
    def tool_constructor(self) -> type[BaseTool]:
        return SearchMemory

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "plums", "limit": 3}


class ManageSuite(SearchSuite):
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return ManageMemory

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"content": "likes pears", "action": "create"}


class TestSearchMemory(SearchSuite, ToolsUnitTests):
    pass


class TestSearchMemoryAtWork(SearchSuite, ToolsIntegrationTests):
    pass


class TestManageMemory(ManageSuite, ToolsUnitTests):
    pass


class TestManageMemoryAtWork(ManageSuite, ToolsIntegrationTests):
    pass


def called(tool: MemoryTool, config: Any = None, **args: Any) -> ToolMessage:
    call = {"name": tool.name, "args": args, "id": "1", "type": "tool_call"}
    message = tool.invoke(call, config)
    assert isinstance(message, ToolMessage)
    return message


def found(tool: MemoryTool, query: str, config: Any = None, **args: Any) -> list[Any]:
    listed: list[Any] = json.loads(str(called(tool, config, query=query, **args).content))
    return listed


def test_a_memory_is_made_found_corrected_and_dropped(store: Store) -> None:
    search, manage = SearchMemory(store=store), ManageMemory(store=store)
    made = str(called(manage, content="Jo likes plums").content)
    id_ = made.removeprefix("created memory ")
    [told] = found(search, "plums")
    assert (told["id"], told["content"], told["trust"]) == (id_, "Jo likes plums", "external")
    assert called(search, query="plums").artifact == list(store.find("default", [id_]))
    assert called(manage, action="update", id=id_, content="Jo likes figs").status == "success"
    assert found(search, "plums")[0]["content"] == "Jo likes figs"
    assert called(manage, action="delete", id=id_).content == f"deleted memory {id_}"
    assert found(search, "plums") == []


def test_pages_and_filters_are_the_models_to_choose(store: Store) -> None:
    for n in range(5):
        store.put(MEMORIES, Draft(text=f"plum {n}", value={"n": n}))
    search = SearchMemory(store=store)
    first, rest = found(search, "plum", limit=2), found(search, "plum", limit=5, offset=2)
    assert len(first) == 2
    assert len({one["id"] for one in (*first, *rest)}) == 5
    assert [one["value"] for one in found(search, "plum", filter={"n": 3})] == [{"n": 3}]


def test_a_tool_serves_each_user_apart(store: Store) -> None:
    where = ("memories", "{user_id}")
    search = SearchMemory(store=store, namespace=where)
    manage = ManageMemory(store=store, namespace=where)
    jo, sam = ({"configurable": {"user_id": name}} for name in ("jo", "sam"))
    made = str(called(manage, jo, content="likes plums").content)
    id_ = made.removeprefix("created memory ")
    assert store.get(Scope("default", ("memories", "jo")), store.find("default", [id_])[0].key)
    assert [one["id"] for one in found(search, "plums", jo)] == [id_]
    assert found(search, "plums", sam) == []
    for action in ("update", "delete"):
        content = {"content": "x"} if action == "update" else {}
        refused = called(manage, sam, action=action, id=id_, **content)
        absent = called(manage, sam, action=action, id="m_absent", **content)
        assert (refused.status, refused.content) == ("error", absent.content)
    assert store.find("default", [id_])[0].text == "likes plums"
    nobody = called(search, query="plums")
    assert nobody.status == "error"
    assert "user_id" in str(nobody.content)


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 200, 7])
def test_a_user_that_is_no_label_is_refused(store: Store, name: Any) -> None:
    search = SearchMemory(store=store, namespace=("{user_id}",))
    assert called(search, {"configurable": {"user_id": name}}, query="x").status == "error"


def test_a_model_is_told_what_it_may_not_do(store: Store) -> None:
    manage = ManageMemory(store=store, allowed=frozenset({"create"}))
    id_ = store.put(MEMORIES, Draft(text="kept")).id
    for args in (
        {"action": "delete", "id": id_},
        {"action": "create", "content": "x", "id": id_},
        {"action": "create"},
    ):
        assert called(manage, **args).status == "error"
    assert [record.text for record in store.list(MEMORIES)] == ["kept"]


def test_what_a_forget_target_forbids_is_not_kept(store: Store) -> None:
    message = called(ManageMemory(store=store), content="about Annabel")
    assert message.status == "error"
    assert "Annabel" not in str(message.content)
    assert store.list(MEMORIES) == ()


def test_a_memory_that_a_forget_target_hides_by_now_can_be_dropped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = Scope("default", ("memories", "jo"))
    id_, other = (store.put(scope, Draft(text="likes plums")).id for scope in (below, ELSEWHERE))
    monkeypatch.setattr(Forbidding, "may_read", lambda _self, _tenant, _text: False)
    manage = ManageMemory(store=store)
    assert called(manage, action="update", id=id_, content="x").status == "error"
    assert called(manage, action="delete", id=other).status == "error"
    assert called(manage, action="delete", id=id_).content == f"deleted memory {id_}"
    monkeypatch.undo()
    assert [record.id for record in store.list(Scope("default"))] == [other]
    assert called(manage, action="delete", id=id_).status == "error"


def test_only_notes_are_found_and_changed(store: Store) -> None:
    id_ = store.put(MEMORIES, Draft(text="advice on plums", kind="advice")).id
    assert found(SearchMemory(store=store), "plums") == []
    assert called(ManageMemory(store=store), action="delete", id=id_).status == "error"


def test_correcting_a_memory_lowers_its_trust_to_the_models(store: Store) -> None:
    id_ = store.put(MEMORIES, Draft(text="likes plums", trust=Trust.USER)).id
    called(ManageMemory(store=store), action="update", id=id_, content="likes figs")
    assert store.find("default", [id_])[0].trust is Trust.EXTERNAL


async def test_both_tools_work_without_blocking(store: Store) -> None:
    manage, search = ManageMemory(store=store), SearchMemory(store=store)
    assert "created" in await manage.ainvoke({"content": "likes plums"})
    assert "likes plums" in await search.ainvoke({"query": "plums"})
