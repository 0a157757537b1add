"""Our own HTTP/2, against a peer that says what a script tells it."""
