"""The parts of fine-tuning: what is asked for, what is learnt from, and the loop."""
