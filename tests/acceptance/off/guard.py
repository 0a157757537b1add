"""The guard with a feature taken out. It runs isolated (`-I -S`), so that no `sitecustomize.py` reaches it."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[3]))

from tests.acceptance.switching import SWITCHES, note

sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parents[1]))
guard: Any = import_module("guard.guard")
SWITCHES[os.environ["SWITCHED_OFF"]].take_out(guard)
note()
sys.exit(guard.main())
