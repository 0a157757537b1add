"""Whole clusters in one process: virtual time, the store in memory, seeded faults.

`loop.py` is time, `faults.py` what goes wrong between a node and the store, `checker.py` the verdict.
"""
