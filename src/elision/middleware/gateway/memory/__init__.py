"""Routes to what is remembered: records, episodes, erasure."""
