"""What a reply must look like, and how a model of our own is held to it: JSON, calls of tools."""
