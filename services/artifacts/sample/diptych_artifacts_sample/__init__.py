"""Artifact types to try the service with: Glare's own tests have the same, under these names."""
