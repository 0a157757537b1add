"""What a node counts of its own work, and what all nodes know of the last hour. It listens; no job depends on it."""
