"""Elision as a LangChain chat model."""

from __future__ import annotations

from langchain_core.messages import HumanMessage, SystemMessage

import elision
from elision.agents.langchain import ChatElision


def main() -> None:
    with elision.load("smollm2-135m") as client:
        model = ChatElision(client=client, profile="guarded", temperature=0, max_tokens=24)
        messages = [
            SystemMessage("You answer in one short sentence."),
            HumanMessage("What is the capital of France?"),
        ]
        print("whole:   ", model.invoke(messages).content)
        print("streamed:", end=" ")
        for chunk in model.stream(messages):
            print(chunk.content, end="")
        print()


if __name__ == "__main__":
    main()
