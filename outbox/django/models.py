"""The table; `outbox/sqlalchemy.py` has the same one, so `rota outbox` reads both."""

from __future__ import annotations

from django.db import models


class OutboxRow(models.Model):
    """A job on its way. Written by `Outbox.enqueue`, deleted by the relay."""

    id = models.BigAutoField(primary_key=True)
    bundle = models.CharField(max_length=64, unique=True)
    task = models.CharField(max_length=256)
    queue = models.CharField(max_length=128)
    job = models.BinaryField()
    stamp = models.CharField(max_length=200, blank=True)
    created_ms = models.BigIntegerField()
    moving_ms = models.BigIntegerField(null=True)
    error = models.TextField(null=True)
    retry_ms = models.BigIntegerField(null=True)

    class Meta:
        db_table = "rota_outbox"

    def __str__(self) -> str:
        return f"row {self.pk}: {self.task}"
