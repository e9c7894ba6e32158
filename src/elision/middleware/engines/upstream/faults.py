"""Names that errors are known by. Other words of an upstream are none, whatever they look like.

An identifier can spell a phrase as well as a sentence can, so only listed ones are passed on.
"""

from __future__ import annotations

import re
from typing import Final

KINDS: Final = frozenset(
    """
api_connection_error api_error authentication_error bad_request_error conflict_error
exceed_context_size_error insufficient_quota internal_error internal_server_error
invalid_argument invalid_request_error model_error not_found_error not_supported_error
overloaded_error permission_denied_error permission_error rate_limit_error rate_limit_exceeded
request_too_large requests server_error service_unavailable service_unavailable_error timeout
timeout_error tokens unavailable_error unprocessable_entity_error validation_error value_error
badrequesterror internalservererror notfounderror notimplementederror ratelimiterror
serviceunavailableerror validationerror valueerror
""".split()
)
"""Types of errors: OpenAI's, Azure's, Anthropic's, vLLM's, llama.cpp's; in small letters."""

CODES: Final = KINDS | frozenset(
    """
account_deactivated billing_hard_limit_reached billing_not_active content_filter
content_policy_violation context_length_exceeded deploymentnotfound engine_overloaded
incorrect_api_key invalid_api_key invalid_base64_image invalid_function_parameters
invalid_image invalid_image_format invalid_image_url invalid_json_schema invalid_model
invalid_parameter invalid_prompt invalid_request invalid_type invalid_value
ip_not_authorized json_validate_failed max_tokens_exceeded missing_required_parameter
model_not_available model_not_found model_overloaded not_found operation_not_supported
quota_exceeded request_timeout responsibleaipolicyviolation string_above_max_length
tool_use_failed too_many_requests unknown_model unknown_parameter unknown_url
unsupported_country_region_territory unsupported_model unsupported_parameter unsupported_value
""".split()
)
"""Codes of errors, likewise."""

FIELDS: Final = frozenset(
    """
messages role content name tool_calls tool_call_id function function_call functions arguments
refusal reasoning_content audio image_url url detail input_audio data format file file_id
filename file_data text type id custom input tools tool_choice parallel_tool_calls strict
description parameters properties required items enum response_format json_schema schema prompt
suffix echo best_of model stream stream_options include_usage n stop seed temperature top_p top_k
min_p max_tokens max_completion_tokens frequency_penalty presence_penalty repetition_penalty
logit_bias logprobs top_logprobs user metadata store service_tier reasoning_effort verbosity
modalities prediction web_search_options safety_identifier prompt_cache_key bad_words min_tokens
stop_token_ids ignore_eos guided_json guided_regex guided_choice guided_grammar
structured_outputs chat_template chat_template_kwargs add_generation_prompt
continue_final_message grammar n_predict cache_prompt body
""".split()
)
"""Names of fields of a request, as documented by OpenAI, vLLM and llama.cpp."""

_STATUS: Final = re.compile(r"[1-5][0-9]{2}")
_STEPS: Final = re.compile(r"\.?\[([0-9]{1,4})\]|(?:^|\.)([a-z_]+|[0-9]{1,4})(?=[.\[]|$)")


def known(value: object, names: frozenset[str]) -> str | None:
    """Return *value* as text if it is one of *names*, in any case, or an HTTP status; else None."""
    text = str(value) if isinstance(value, str | int) else ""
    return text if text.lower() in names or _STATUS.fullmatch(text) else None


def field(value: object) -> str | None:
    """Return *value* if it is the path of a field of a request, such as ``messages[0].content``."""
    if not isinstance(value, str) or len(value) > 128:
        return None
    steps = [*_STEPS.finditer(value)]
    is_path = "".join(step[0] for step in steps) == value
    is_known = all(step[2] is None or step[2].isdigit() or step[2] in FIELDS for step in steps)
    return value if value and is_path and is_known else None
