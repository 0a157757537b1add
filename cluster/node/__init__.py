"""One node: its life, what it takes in, what it runs, what it reports."""
