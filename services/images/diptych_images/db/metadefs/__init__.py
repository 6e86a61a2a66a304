"""Metadata definitions: namespaces, what is in them, and the resource types that they are for."""
