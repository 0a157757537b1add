"""The clients that applications hold, and their machinery: enqueues out, results in."""
