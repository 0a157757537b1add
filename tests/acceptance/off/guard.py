"""The guard with a feature taken out. It runs isolated (`-I -S`), so that no `sitecustomize.py` reaches it."""

import os
import sys
from importlib import util
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))

from tests.acceptance.switching import SWITCHES, note

sys.argv = sys.argv[1:]
spec = util.spec_from_file_location("rota_guard", sys.argv[0])
assert spec is not None and spec.loader is not None
guard = util.module_from_spec(spec)
spec.loader.exec_module(guard)
SWITCHES[os.environ["SWITCHED_OFF"]].take_out(guard)
note()
sys.exit(guard.main())
