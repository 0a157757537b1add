"""One suite for every ledger: the one in memory and real etcd of several releases must give the same answers.

`backends.py` says which there are; `test_model.py` drives memory and etcd side by side with what Hypothesis thinks up.
"""
