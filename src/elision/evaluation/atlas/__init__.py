"""Closed loops: does an agent get better with what it remembers? Scripted students, real memory."""
