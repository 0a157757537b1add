"""A node of the cluster, by its rooms. Each imports only from rooms below it (`make check` knows):

    cli, demo, testing   what people start
    boot                 settings, and the process that puts a node together
    dashboard            pages for people with a browser
    node, port           one node's life: what it takes in, runs and reports; the HTTP port
    telemetry            what nodes count, and tell each other for people who look
    admin, master        where is a job and why; what only the master does
    state, events        what lies in the store and the writes that change it; what happened
    ledger               the seam to the store

May import `rota.worker` and `rota.client`. `docs/internals.md` goes along the main path.
"""

assert __name__ == "rota.cluster", "run rota as an installed package: pip install -e ."
