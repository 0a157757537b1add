from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []    # noqa: RUF012 - as Django has it
    operations = [                              # noqa: RUF012
        migrations.CreateModel(
            name="OutboxRow",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("bundle", models.CharField(max_length=64, unique=True)),
                ("task", models.CharField(max_length=256)),
                ("queue", models.CharField(max_length=128)),
                ("job", models.BinaryField()),
                ("stamp", models.CharField(blank=True, max_length=200)),
                ("created_ms", models.BigIntegerField()),
                ("moving_ms", models.BigIntegerField(null=True)),
                ("error", models.TextField(null=True)),
                ("retry_ms", models.BigIntegerField(null=True)),
            ],
            options={"db_table": "rota_outbox"},
        ),
    ]
