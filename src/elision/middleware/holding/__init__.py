"""Guards for engines that only speak text: what they write is held until it may leave."""
