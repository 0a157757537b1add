"""Applications that the acceptance tests' nodes import."""
