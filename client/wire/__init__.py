"""What both ends of the wire agree on: frames, bodies, signatures, and what a node tells of its cluster."""
