"""The semantic layer: what must not be said in other words."""
