"""Whether replies tell what is registered: made-up worlds, a classifier, and what it finds."""
