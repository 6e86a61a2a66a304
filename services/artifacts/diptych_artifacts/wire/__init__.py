"""Bodies to frozen values and rows to documents; no I/O."""
