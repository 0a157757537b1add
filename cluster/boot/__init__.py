"""Starting a node: its settings, its process, an etcd of its own."""
