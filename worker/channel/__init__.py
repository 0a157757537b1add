"""What node and runner share: frames over a socket pair, permits to start jobs, job numbers."""
