"""Our guards for other people's gateways: what they ask, and what is judged of it."""
