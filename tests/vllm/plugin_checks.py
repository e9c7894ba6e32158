"""Checks of the plug-in against vLLM's own classes; a script that runs where vLLM is installed.

Usage: plugin_checks.py MODEL_FOLDER. Prints what was compared, as JSON; an assertion ends it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from importlib.metadata import entry_points
from typing import Any

FORBIDDEN = ("pydantic", "orjson", "sqlalchemy", "aiohttp", "fastapi", "faiss")


class Refusing:
    """Stands in front of the finders: none of the packages that the plug-in must do without."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"the plug-in asks for {name}")


def imports() -> int:
    """Import every module of the plug-in's but those that need vLLM, without what it may lack."""
    finder: Any = Refusing()
    sys.meta_path.insert(0, finder)
    from elision.middleware.engines import plugin

    names = [one.name for one in pkgutil.iter_modules(plugin.__path__)]
    for name in names:
        importlib.import_module(f"{plugin.__name__}.{name}")
    sys.meta_path.remove(finder)
    rooms = {name.split(".")[1] for name in sys.modules if name.startswith("elision.")}
    assert rooms <= {"contract", "errors", "lexicon", "guards", "middleware"}, rooms
    return len(names)


def check_loading() -> None:
    """See that both of vLLM's loaders take the class, and that what is wrong is a 400."""
    from plugin_replay import STOP, params_of
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.sample import logits_processor as first
    from vllm.v1.worker.gpu.sample.logits_processor import loader

    from elision.middleware.engines.plugin import admission
    from elision.middleware.engines.plugin.orders import KEY, Order
    from elision.middleware.engines.vllm_plugin import ElisionProcessor
    from vllm import SamplingParams

    found = [one for one in entry_points(group=first.LOGITSPROCS_GROUP) if one.name == "elision"]
    assert [one.load() for one in found] == [ElisionProcessor]
    assert first._load_logitsprocs_plugins() == [ElisionProcessor]
    assert loader._load_v2_logitsprocs_plugins() == [ElisionProcessor]
    validate = first.validate_logits_processors_parameters
    validate(None, SamplingParams())
    validate(None, params_of(Order(stop=STOP)))
    for wrong in ({KEY: "{}"}, {KEY: 5}, {"elision_seal": "x"}):
        try:
            validate(None, SamplingParams(extra_args=wrong))
        except VLLMValidationError:
            continue
        raise AssertionError(wrong)
    assert {*admission.FORBIDDEN} <= {*SamplingParams.__struct_fields__}


def check_taking() -> None:
    """See that rows are told how they are taken only where nothing else counts."""
    from elision.middleware.engines.plugin.admission import taking
    from vllm import SamplingParams

    assert taking(SamplingParams(temperature=0.0)) == {"best_only": True}
    assert taking(SamplingParams(temperature=0.5)) == {"temperature": 0.5}
    counting = ({"logprobs": 1}, {"frequency_penalty": 1}, {"presence_penalty": 1})
    for other in (*counting, {"repetition_penalty": 1.1}, {"logprob_token_ids": [5]}):
        assert taking(SamplingParams(temperature=0.0, **other)) == {}, other


def check_compiling() -> None:
    """See that what vLLM brings compiles EM-INF: without it nothing fails, and all is slower."""
    from elision.middleware.interventions.entropy.rows import prepare

    assert prepare() is not None


def main(folder: str) -> None:
    """Check everything, the imports first: what vLLM itself needs is refused there."""
    n_modules = imports()
    import torch
    from plugin_first import check_first
    from plugin_replay import CPU, TEXT, made_config, made_orders
    from plugin_second import check_second, check_untested

    from elision.middleware.engines.vllm_plugin import UNTESTED, ElisionProcessor

    torch.set_num_threads(1)
    check_loading()
    check_taking()
    check_compiling()
    check_untested(folder)
    os.environ[UNTESTED] = "1"
    config, orders = made_config(folder), made_orders()
    words = ElisionProcessor(made_config(folder), CPU, False)._worker.encode(TEXT)
    found = {"modules": n_modules, "first": check_first(config, orders, words)}
    found["second"] = check_second(made_config(folder), orders, words)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
