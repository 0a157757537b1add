"""A node's process that does what its test says: it passes messages on between the guard and the test's socket."""

import os
import selectors
import socket
import sys
import threading


def pass_on(printed):
    """What a runner prints goes to our stderr."""
    while data := os.read(printed, 65536):
        os.write(2, data)


guard = socket.socket(fileno=int(os.environ["ROTA_GUARD_FD"]))
test = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
test.connect(os.environ["RELAY"])
test.send(b'{"op": "hello", "pid": %d}' % os.getpid())
selector = selectors.DefaultSelector()
selector.register(guard, selectors.EVENT_READ, test)
selector.register(test, selectors.EVENT_READ, guard)
kept = []
while True:
    for key, _ in selector.select():
        data, descriptors, _, _ = socket.recv_fds(key.fileobj, 100_000, 8)
        if descriptors:
            jobs, questions, permits, output, tally = descriptors
            kept += jobs, questions, permits, tally
            threading.Thread(target=pass_on, args=(output,), daemon=True).start()
        if not data:
            sys.exit(0)
        if data.startswith(b"exit "):
            sys.exit(int(data[5:]))
        key.data.send(data)
