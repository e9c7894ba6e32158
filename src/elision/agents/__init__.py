"""Who thinks: agents that are handed an engine, and adapters for agent frameworks."""
