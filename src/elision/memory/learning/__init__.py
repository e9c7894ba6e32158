"""Learning entries: what they are worth, and which of them are shown."""
