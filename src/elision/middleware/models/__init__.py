"""Models by name: fetched once, verified, converted, and kept."""
