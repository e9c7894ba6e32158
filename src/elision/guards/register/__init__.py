"""The forget register: targets, their life, the log of what was done to them."""
