"""Measurements of rota alone, on a real etcd with real processes. Not installed; may use every room of `rota`.

    python -m benchmarks              rates, latencies, CPU by process, beside bare etcd (`make bench`)
    python -m benchmarks.takeover     how long until the jobs of a killed node start elsewhere
    python -m benchmarks.crowd        100,000 async jobs that run at the same time on one node
    python -m benchmarks.listing      parts of the list of jobs while a million wait
    python -m benchmarks.scheduled    a million jobs for later; how late those are that come due
    python -m benchmarks.backlog      a million lone jobs that wait, and a new master
    python -m benchmarks.peers        rota beside nine other queues, and every goal of speed (`make bench-peers`)
    python -m benchmarks.wakeups      transactions, turns of the loop and tasks of a lone job and a bundle, counted
    python -m benchmarks.profile      where a job's microseconds go, by process and step (needs py-spy)

Start reading at `measure.py`: a `Stage` (etcd and nodes) is set up, each `Case` starts a load in a process of its own
(`load.py`) and reads the meters before and after it (`meters.py`). The runs at scale have `scale.py` in common.
"""
