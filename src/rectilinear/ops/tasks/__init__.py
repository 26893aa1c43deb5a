"""Tasks of lm-evaluation-harness: found, loaded from the Hub or from local files, and put to a model."""
