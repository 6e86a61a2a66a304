"""The development stack that `make run` and the tests stand on. Standard library only."""
