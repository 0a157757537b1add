"""What node and runner share: frames over a socket pair, permits, slots."""
