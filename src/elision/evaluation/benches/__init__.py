"""One file per bench; each has a ``measure(setup)`` that yields figures."""
