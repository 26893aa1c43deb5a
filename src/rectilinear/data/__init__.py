"""Where text comes from, and how it is cut into windows."""
