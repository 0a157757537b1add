"""What becomes of jobs that have ended: written to the store, and told to who waits."""
