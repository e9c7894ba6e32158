"""The gate: how near a prompt comes to the targets."""
