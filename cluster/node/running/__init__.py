"""From a claim to its outcome, or back to its queue."""
