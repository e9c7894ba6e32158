"""An agent of LangChain whose tools are guarded and whose runs are remembered.

Needs a gateway whose model calls tools, at ELISION_URL: `elision serve --upstream ...`, say.
"""

from __future__ import annotations

import os

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

import elision
from elision.agents.langchain import ChatElision
from elision.agents.langchain_agent import ElisionMiddleware

URL = os.environ.get("ELISION_URL", "http://127.0.0.1:8000")


@tool
def look_up(name: str) -> str:
    """Return what the address book says of a person."""
    return f"{name}: 7 Rosebud Lane, telephone 555 0100."


def main() -> None:
    with elision.connect(f"{URL}/v1", key=os.environ.get("ELISION_KEY")) as client:
        client.forget("her street", ["Rosebud Lane"], action="redact")
        middleware = ElisionMiddleware(client, memory=client.memory)
        agent = create_agent(
            ChatElision(client=client, temperature=0),
            [look_up],
            system_prompt="You answer in one short sentence.",
            middleware=[middleware],
        )
        reply = agent.invoke({"messages": [HumanMessage("How do I reach Ann?")]})
        for message in reply["messages"]:
            print(f"{message.type}:", message.text or [call["args"] for call in message.tool_calls])
        print("counts: ", middleware.record_reward(reply["atlas"]["episode"], 1.0))


if __name__ == "__main__":
    main()
