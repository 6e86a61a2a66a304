"""Named stores of bytes behind one contract."""
