"""What a remote engine is made of: addresses, connections, bodies, events, what is offered."""
