"""A gRPC client over HTTP/2, as small as one peer allows: etcd, which is asked many small things by one event loop.

`frames.py` reads and builds frames, `headers.py` header blocks, `sending.py` keeps to the peer's windows, `calls.py` is
a call and a stream, `connection.py` one connection, `member.py` one member of etcd as the ledger sees it.

What it leaves out on purpose: header compression with memory (both tables have size 0, so that our blocks are constants
and the server's can be looked up by their bytes), pushes, priorities, compressed messages, proxies. Sources: RFC 9113
(HTTP/2), RFC 7541 (HPACK), and gRPC's "gRPC over HTTP2" protocol document.
"""
