"""What benches of a real vLLM are made of: load, parity, attempts to get past the guard."""
