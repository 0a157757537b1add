"""What people ask of a cluster and do to it: where a job is, why it waits, the failed set, settings."""
