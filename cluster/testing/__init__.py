"""What `rota.testing` gives to an application's own tests: a cluster in memory, jobs that run where they are enqueued.

Start reading at `memory.py`. Nothing here is used by a node in production.
"""
