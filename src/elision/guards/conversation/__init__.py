"""What the turns of a conversation spell together."""
