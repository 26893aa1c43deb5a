"""The verbs; each returns a result and writes no file."""
