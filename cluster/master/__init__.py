"""One term of a master: who runs what, and every duty that only one node of the cluster has."""
