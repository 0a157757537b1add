"""Tests of `cluster/`, the ledger on etcd among them."""
