"""A node: the ledger, membership, election, the master's aggregator, execution, the HTTP port and the command line.

May import `rota.worker` and `rota.client`. Start reading at `node.py`; `docs/internals.md` prints the main path.
"""

assert __name__ == "rota.cluster", "run rota as an installed package: pip install -e ."
