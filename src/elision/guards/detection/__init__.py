"""The check of finished texts, over all canonical levels and decoders."""
