"""One module per backend; reached only through the registry."""
