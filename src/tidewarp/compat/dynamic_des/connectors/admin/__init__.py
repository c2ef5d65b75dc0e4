"""The operator's side of a broker."""
