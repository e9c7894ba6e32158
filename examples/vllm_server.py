"""A vLLM of one's own behind the guard: start it, ask, register, ask again, end it.

Needs vLLM, here or in another environment: ``ELISION_VLLM_PYTHON=/opt/vllm/bin/python``.
"""

from __future__ import annotations

import elision

QUESTION = "What is the capital of France?"


def main() -> None:
    with elision.load("smollm2-135m", engine="vllm", profile="guarded") as client:
        print("before:", client.chat(QUESTION, temperature=0, max_tokens=24).text)
        target = client.forget("the capital", ["Paris"]).target
        print("during:", client.chat(QUESTION, temperature=0, max_tokens=24).text)
        client.revoke(target.id)


if __name__ == "__main__":
    main()
