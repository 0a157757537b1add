"""The tests, and what they share: fixtures in `conftest.py`, network faults in `proxy.py`."""
