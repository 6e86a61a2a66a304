"""Routes of metadata definitions: one module per kind."""
