"""Find the decoder stack, watch the stream, load models."""
