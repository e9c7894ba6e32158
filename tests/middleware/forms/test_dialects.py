"""A chat template says by itself how its model writes calls and thoughts."""

from __future__ import annotations

import pytest

from elision.middleware.engines.causal import CausalModel
from elision.middleware.forms.dialects import HERMES, LLAMA, MISTRAL, PLAIN, THINK, dialect_of
from elision.testing.models import tiny_model
from elision.testing.tokenizers import CHATML
from elision.testing.tool_templates import TEMPLATES, Family, tool_tokenizer

# The lines by which each family's published template is known, and nothing else of it.
QWEN = (
    '{%- if tools %}<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}'
    "{%- endif %}"
)
QWEN_CODER = QWEN + "<function=example>"
GLM = "{%- if tools %}<tool_call>{name}\n<arg_key>k</arg_key>{%- endif %}"
LLAMA_3_1 = (
    '{%- if tools %}{"name": function name, "parameters": dictionary}{% endif %}'
    "{%- if 'tool_calls' in message %}{{ '\"parameters\": ' }}{% endif %}"
)
MISTRAL_V3 = "{%- if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]"
MISTRAL_V11 = MISTRAL_V3 + "[ARGS]"
DEEPSEEK = "{%- if tools %}<｜tool▁calls▁begin｜>{% endif %}"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (None, PLAIN.name),
        ("", PLAIN.name),
        (CHATML, PLAIN.name),
        (QWEN, HERMES.name),
        (QWEN_CODER, PLAIN.name),
        (GLM, PLAIN.name),
        (LLAMA_3_1, LLAMA.name),
        (MISTRAL_V3, MISTRAL.name),
        (MISTRAL_V11, PLAIN.name),
        (DEEPSEEK, PLAIN.name),
    ],
)
def test_a_dialect_is_found_in_the_template_and_an_unknown_one_is_none(
    template: str | None, name: str
) -> None:
    found = dialect_of(template)

    assert found.name == name
    assert found.takes_tools == (name != PLAIN.name)
    assert found.think is None


def test_a_template_that_names_thoughts_has_them_whatever_else_it_writes() -> None:
    assert dialect_of(CHATML + "</think>").think == THINK
    assert dialect_of(QWEN + "<think>").name == HERMES.name


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_model_knows_its_dialect_and_whether_its_prompts_begin_a_thought(family: Family) -> None:
    tokenizer = tool_tokenizer(family)
    found = CausalModel(tiny_model(vocab_size=260), tokenizer, name="tiny").dialect

    assert found.takes_tools
    assert found.calls_mark_id == (259 if family == "mistral" else None)
    assert (found.think is not None) == (family in {"thinking", "opened"})
    assert found.opens_thought == (family == "opened")


def test_a_token_that_writes_its_name_begins_no_calls() -> None:
    tokenizer = tool_tokenizer("hermes")
    tokenizer.chat_template = TEMPLATES["mistral"]
    tokenizer.add_tokens(["[TOOL_CALLS]"])
    found = CausalModel(tiny_model(vocab_size=260), tokenizer, name="tiny").dialect

    assert (found.name, found.calls_mark_id) == (MISTRAL.name, None)
