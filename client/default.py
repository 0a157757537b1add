"""The name by which tools close a process's default client; it lies in `calls/default.py`."""

from .calls.default import client, replace, swap

__all__ = ["client", "replace", "swap"]
