"""A scripted vLLM that drafts, for tests of the hook."""

from __future__ import annotations

import sys

import pytest

from .scripted_runner import ScriptedRunner, vllm_modules


@pytest.fixture
def scripted_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put scripted modules in the place of vLLM's."""
    monkeypatch.delenv("ELISION_VLLM_SECRET", raising=False)
    monkeypatch.delenv("ELISION_VLLM_UNTESTED", raising=False)
    for name, module in vllm_modules().items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def runner(scripted_vllm: None) -> ScriptedRunner:
    """Return a runner whose model is loaded."""
    found = ScriptedRunner()
    found.load_model()
    return found
