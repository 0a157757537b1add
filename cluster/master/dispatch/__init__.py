"""Who decides which node gets a job, and how: pure, fed by the watch."""
