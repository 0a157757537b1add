"""What sealing and offloading cost a payload: `python -m benchmarks.payloads`. CPU time of one process; nothing else
runs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable

from rota.client.wire import offload, sealing
from rota.client.wire.keyring import Keyring

KEYS = Keyring({"k": bytes(range(32))})
BUNDLE = "0123456789ab-00000001"


def us(call: Callable[[], object], times: int) -> float:
    """CPU microseconds of one call, the best of five rounds."""
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            call()
        rounds.append((time.process_time() - began) / times * 1e6)
    return min(rounds)


def main() -> None:
    ring = sealing.Ring(KEYS)
    for size in (300, 10_000, 200_000):
        data = os.urandom(size)
        sealed = ring.seal(data, sealing.ARGUMENTS)
        seal_us = us(lambda data=data: ring.seal(data, sealing.ARGUMENTS), 500)
        open_us = us(lambda sealed=sealed: ring.open(sealed, sealing.ARGUMENTS), 500)
        print(f"{size:>9,} bytes: seal {seal_us:.1f} µs, open {open_us:.1f} µs, {len(sealed) - size} bytes more")
    with tempfile.TemporaryDirectory() as folder:
        offload.use(f"file://{folder}")
        for size in (300_000, 10_000_000):
            data = os.urandom(size)
            check = offload.stored(data, BUNDLE, 0, "arguments")
            put_us = us(lambda data=data: offload.stored(data, BUNDLE, 0, "arguments"), 3)
            get_us = us(lambda check=check: offload.fetched(check), 3)
            print(f"{size:>9,} bytes: put {put_us:,.0f} µs, get {get_us:,.0f} µs; claim check of {len(check)} bytes")
    plain = b"\x80\x05" + os.urandom(300)
    print(f"a payload that is neither: {us(lambda: plain < sealing.PLAIN_FROM, 100_000) * 1000:.0f} ns")


if __name__ == "__main__":
    main()
