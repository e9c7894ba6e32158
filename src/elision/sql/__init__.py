"""One database under a store: SQLite or PostgreSQL."""
