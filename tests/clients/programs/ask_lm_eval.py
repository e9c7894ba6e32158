"""lm-eval: ``local-completions`` with the server's own tokenizer.

    ask_lm_eval.py PAIRS

PAIRS is JSON: contexts and continuations.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from asking import BASE, KEY, tell

os.environ["OPENAI_API_KEY"] = KEY

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

PAIRS = json.loads(sys.argv[1])


def model(**more: Any) -> LocalCompletionsAPI:
    given = {"base_url": f"{BASE}/completions", "model": "tiny", "auth_token": KEY}
    return LocalCompletionsAPI(**given, max_length=400, max_retries=1, **more)


def instances(kind: str, *asked: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, one, n) for n, one in enumerate(asked)]


def loglikelihood() -> Any:
    return model().loglikelihood(instances("loglikelihood", *map(tuple, PAIRS)))


def batched() -> Any:
    return model(batch_size=4).loglikelihood(instances("loglikelihood", *map(tuple, PAIRS)))


def rolling() -> Any:
    texts = [(context + continuation,) for context, continuation in PAIRS]
    return model().loglikelihood_rolling(instances("loglikelihood_rolling", *texts))


def written() -> Any:
    options = {"until": ["\n\n"], "max_gen_toks": 12, "temperature": 0}
    texts = [(context, options) for context, _ in PAIRS]
    return model().generate_until(instances("generate_until", *texts))


def evaluated() -> Any:
    rows = [{"question": c, "choices": [a, " somewhere else."], "label": 0} for c, a in PAIRS]
    Path("rows.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {
        "task": "harbour", "dataset_path": "json", "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": "rows.json"}}, "output_type": "multiple_choice",
        "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}", "target_delimiter": "",
    }  # fmt: skip
    found = lm_eval.simple_evaluate(model=model(), tasks=[task], log_samples=True)
    return [[float(one[0]) for one in row["filtered_resps"]] for row in found["samples"]["harbour"]]


tell(
    loglikelihood=loglikelihood, batched=batched, rolling=rolling, written=written,
    evaluated=evaluated,
)  # fmt: skip
