"""What the vLLM plug-in is made of: orders, the rows they are for, masks, drafts. Runs in vLLM."""
