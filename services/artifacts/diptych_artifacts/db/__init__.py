"""Tables and statements: a function is one question or one change."""
