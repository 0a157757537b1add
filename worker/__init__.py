"""Where user code runs, by the processes that take part.

    guard    the parent of a node and of its runners (one file, standard library only, so that it can fork)
    pool     the runners as their node sees them
    runner   the process in which user code runs
    channel  what node and runner share

May import `rota.client`, never `rota.cluster`.
"""

assert __name__ == "rota.worker", "run rota as an installed package: pip install -e ."
