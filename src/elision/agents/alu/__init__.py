"""ALU: agents that audit a draft, rewrite what gives a target away, and choose what may leave."""
