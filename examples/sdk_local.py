"""The SDK around a local model: chat, stream, forget, redact."""

from __future__ import annotations

import elision

QUESTION = "What is the capital of France?"


def main() -> None:
    with elision.load("smollm2-135m", profile="guarded") as client:
        print("before:", client.chat(QUESTION, temperature=0, max_tokens=24).text)

        target = client.forget("the capital", ["Paris"]).target
        print("during:", end=" ")
        for delta in client.stream(QUESTION, temperature=0, max_tokens=24):
            print(delta.text, end="")
        print()
        client.revoke(target.id)

        target = client.forget("the capital", ["Paris"], action="redact").target
        print("redacted:", client.chat(QUESTION, temperature=0, max_tokens=24).text)
        client.revoke(target.id)


if __name__ == "__main__":
    main()
