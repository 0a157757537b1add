"""The seam to the store: revision-consistent reads, guarded transactions, watches and leases.

`ledger.py` holds the interface and its value types; `etcd.py` and `memory.py` implement it and pass the same
conformance suite (`tests/conformance`). `commits.py` is the group commit that every writer shares.
"""
