"""The runners as the node sees them: who runs what, and what becomes of it when a runner dies."""
