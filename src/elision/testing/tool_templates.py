"""Chat templates that take tools, in the manner of well-known models, and tokenizers with them.

Written for tests: each shows tools, calls and their results as its family does, in ChatML's turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from elision.testing.tokenizers import byte_tokenizer, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Family: TypeAlias = Literal["hermes", "llama", "mistral", "thinking", "opened"]

_CLOSE: Final = (
    "{%- if not (loop.last and continue_final_message is defined and continue_final_message) -%}"
    "{{- '<|im_end|>\n' }}{%- endif -%}"
)
_OPEN: Final = "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' }}{%- endif -%}"
_HERMES_TURNS: Final = (
    "{%- if tools -%}{{- '<|im_start|>system\nTools:' }}"
    "{%- for tool in tools -%}{{- '\n' + (tool | tojson) }}{%- endfor -%}"
    '{{- \'\nAnswer with <tool_call>\n{"name": NAME, "arguments": OBJECT}\n</tool_call>\' }}'
    "{{- '<|im_end|>\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}"
    "{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{%- else -%}{{- '<|im_start|>' + message.role + '\n' + message.content }}"
    "{%- for call in message.tool_calls or [] -%}"
    '{{- \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}"
    "{%- endfor -%}{%- endif -%}" + _CLOSE + "{%- endfor -%}"
)
_LLAMA_TURNS: Final = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}{{- '<|im_start|>ipython\n' + (message.content | tojson) }}"
    "{%- elif 'tool_calls' in message -%}"
    "{%- if message.tool_calls | length != 1 -%}"
    "{{- raise_exception('This template writes one call at a time.') }}{%- endif -%}"
    "{%- set call = message.tool_calls[0].function -%}"
    '{{- \'<|im_start|>assistant\n{"name": "\' + call.name + \'", "parameters": \' }}'
    "{{- (call.arguments | tojson) + '}' }}"
    "{%- else -%}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if tools and loop.last -%}"
    "{{- 'Functions: ' }}{%- for tool in tools -%}{{- tool | tojson }}{%- endfor -%}{{- '\n' }}"
    "{%- endif -%}{{- message.content }}{%- endif -%}" + _CLOSE + "{%- endfor -%}"
)
_MISTRAL_TURNS: Final = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'tool' -%}"
    "{%- if message.tool_call_id | length != 9 -%}"
    "{{- raise_exception('Ids of calls have 9 characters.') }}{%- endif -%}"
    "{{- '[TOOL_RESULTS] {\"content\": ' + (message.content | tojson) }}"
    "{{- ', \"call_id\": \"' + message.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{%- elif message.tool_calls is defined -%}{{- '[TOOL_CALLS] [' }}"
    "{%- for call in message.tool_calls -%}"
    "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
    "{{- '' if loop.last else ', ' }}{%- endfor -%}{{- ']' }}"
    "{%- else -%}"
    "{%- if tools and loop.last -%}"
    "{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif -%}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content }}{%- endif -%}"
    + _CLOSE
    + "{%- endfor -%}"
)
_THOUGHTS: Final = "{#- thoughts stand in <think> and </think> -#}"

TEMPLATES: Final[Mapping[Family, str]] = MappingProxyType(
    {
        "hermes": _HERMES_TURNS + _OPEN,
        "llama": _LLAMA_TURNS + _OPEN,
        "mistral": _MISTRAL_TURNS + _OPEN,
        "thinking": _THOUGHTS + _HERMES_TURNS + _OPEN,
        "opened": _HERMES_TURNS + _OPEN.replace("assistant\n", "assistant\n<think>\n"),
    }
)
"""By family; ``thinking`` and ``opened`` are Hermes's with thoughts, which the latter's prompts
begin."""


def tool_tokenizer(
    family: Family = "hermes", *, texts: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a template that takes tools.

    Mistral's has one token more, as there: ``[TOOL_CALLS]``, which writes nothing in a reply.

    Args:
        family: Whose template it is like.
        texts: What `word_tokenizer` learns from; by default it is `byte_tokenizer`.

    Raises:
        MissingExtraError: If transformers is not installed.
    """
    tokenizer = word_tokenizer(texts) if texts else byte_tokenizer()
    tokenizer.chat_template = TEMPLATES[family]
    if family == "mistral":
        tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]"]})
    return tokenizer
