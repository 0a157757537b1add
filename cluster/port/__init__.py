"""The HTTP port of a node: WebSocket frames, JSON, health."""
