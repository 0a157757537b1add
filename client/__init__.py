"""What an application touches: tasks, jobs, the clients, and everything both ends of the wire agree on.

The lowest room: it imports nothing from `rota.worker` or `rota.cluster`. Start reading at `tasks.py` (what a user
declares), then `api.py` (how a call becomes a stored job), `pickling.py` (arguments and results), `codec.py` and
`keyring.py` (bodies and signatures) and `wire.py` (frames).
"""

assert __name__ == "rota.client", "run rota as an installed package: pip install -e ."
