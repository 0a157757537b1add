from __future__ import annotations

from django.apps import AppConfig


class RotaOutbox(AppConfig):
    name = "rota.outbox.django"
    label = "rota_outbox"
    verbose_name = "rota outbox"
    default_auto_field = "django.db.models.BigAutoField"
