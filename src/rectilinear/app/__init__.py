"""The local explorer: one page on a loopback address (extra `app`)."""
