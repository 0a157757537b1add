"""What a web framework wants done before an application's modules can be imported."""

from __future__ import annotations

import os
from importlib import import_module

from rota.client.errors import ConfigError

DJANGO = "DJANGO_SETTINGS_MODULE"


def set_up() -> None:
    """Django: load its settings and apps, where the environment names them. Raises `ConfigError` if it is not there."""
    if not os.environ.get(DJANGO):
        return
    try:
        django = import_module("django")
    except ImportError as error:
        raise ConfigError(
            f"{DJANGO} is set, and Django cannot be imported: install it beside rota, or unset the variable"
        ) from error
    django.setup()
