"""Found by every Python process that has this folder on its PYTHONPATH: takes out the feature that is named there."""

import os

if os.environ.get("SWITCHED_OFF"):
    from tests.acceptance.switching import install

    install(os.environ["SWITCHED_OFF"])
