"""What the proxy's benches are made of: an upstream, clients and rivals, each its own process."""
