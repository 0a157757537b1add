"""Commands that look: at a cluster, its jobs and flows, and at what may be wrong."""
