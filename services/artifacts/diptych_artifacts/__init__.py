"""The Artifacts API v1."""
