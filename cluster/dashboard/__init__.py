"""The dashboard: pages that every node serves, made on the server, kept up to date by the stream of events.

Nothing comes from elsewhere, and nothing is built. What the pages show and do goes through `NodeService` and
`Telemetry`, like all else on the port.
"""
