"""What the guard starts, and tools look for among processes: `python -m rota.cluster.process`, a node.
`boot/process.py` puts it together."""

import sys

from .boot.process import main

if __name__ == "__main__":
    sys.exit(main())
