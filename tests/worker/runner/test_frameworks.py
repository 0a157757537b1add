"""An application's framework is set up before its modules are imported."""

from __future__ import annotations

import pytest

from rota.client.errors import ConfigError
from rota.worker.runner.environment import frameworks

from ..rig import Rig


async def test_django_is_set_up_where_the_environment_names_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "djangoshop.settings")
    async with Rig.open(app="djangoshop.tasks") as rig:
        assert await rig.value("total", 100, 250, app="djangoshop.tasks") == 350


async def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "nowhere.settings")
    with pytest.raises(ConfigError, match=r"ModuleNotFoundError.*nowhere"):
        async with Rig.open(app="djangoshop.tasks"):
            pass


def test_django_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "shop.settings")

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(frameworks, "import_module", missing)
    with pytest.raises(ConfigError, match="install it beside rota"):
        frameworks.set_up()
