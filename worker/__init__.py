"""Where user code runs: the guard, the runners it forks, and the channel between a runner and its node.

May import `rota.client`, never `rota.cluster`. `guard.py` imports the standard library only, so that it can fork.
Start reading at `guard.py`, then `runner.py`.
"""

assert __name__ == "rota.worker", "run rota as an installed package: pip install -e ."
