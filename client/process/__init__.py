"""Threads of rota's own in the application's process, and the end of that process."""
