"""What bundles carry: their bodies, read and verified, and the results that their jobs have waited for."""
