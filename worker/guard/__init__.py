"""The guard, parent of a node and of its runners, and the node's line to it."""
