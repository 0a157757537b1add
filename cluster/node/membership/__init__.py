"""An identity's life in the cluster: its lease, its record, its candidacy, and whether the store serves it."""
