"""The profile ``agentic``: ATLAS works on the last question, with what it remembers."""
