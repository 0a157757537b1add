"""The command line. `main` is what the `rota` script calls.

Start reading at `app.py`. Commands that look at a cluster ask any node's HTTP port (`ask.py`) and print what it says
(`show.py`); `node` and `dev` (`serve.py`) start nodes, `init` (`secrets.py`) makes key and token.
"""

from .app import main

__all__ = ["main"]
