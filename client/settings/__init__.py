"""Where a client finds its cluster, and the keys of both."""
