"""Completions graded by a language model over the network."""
