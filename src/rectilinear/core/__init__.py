"""Pure tensors: moments, linear maps and scores, tails, spectra. No IO, no transformers."""
