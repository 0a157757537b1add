"""What an application touches: tasks, jobs, the clients, and everything both ends of the wire agree on.

The lowest room: it imports nothing from `rota.worker` or `rota.cluster`. Start reading at `tasks/task.py` (what a user
declares), then `calls/order.py` (how a call becomes a job), `calls/pickling.py` (arguments and results),
`wire/codec.py` and `wire/keyring.py` (bodies and signatures) and `wire/frames.py`. The clients that applications hold
are in `api/`, links to nodes in `transports/`; what may be said of a job is checked in `options/`. Values and errors
that all share lie here.
"""

assert __name__ == "rota.client", "run rota as an installed package: pip install -e ."
