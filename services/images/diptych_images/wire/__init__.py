"""What a client sends and sees: no SQL, no I/O."""
