"""The name by which harnesses start an etcd of their own; it lies in `boot/embedded.py`."""

from .boot.embedded import EmbeddedConfig, EmbeddedEtcd

__all__ = ["EmbeddedConfig", "EmbeddedEtcd"]
