"""Taking jobs in: whether, and how."""
