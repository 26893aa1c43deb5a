"""Training with a penalty on the stream, and measuring linearity while anything trains."""
