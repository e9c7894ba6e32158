"""Methods of the literature, to be used as they are and compared with."""
