"""rota beside the job queues that people use today: `make bench-peers`.

`roster.py` says who they are and with which settings (each at its best), `environments.py` gives each an environment of
its own, `brokers.py` starts Redis and Postgres, `harness.py` takes the figures, `goals.py` sets them beside rota's.
What runs inside a rival's environment lies in `inside/`: its tasks and calls, `counting.py` and `produce.py`.
"""
