"""Agents that learn while they work: a student, a teacher, and what is remembered of both."""
