"""What surrounds a job in its process: forks, signals, logs, the event loop, where modules are found."""
