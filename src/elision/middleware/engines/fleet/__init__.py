"""What the vLLM engine is made of: replicas, proofs, pushes, and a server of one's own."""
