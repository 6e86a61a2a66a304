"""Types of artifacts: what fields they have and what may be done with them, declared as data."""
