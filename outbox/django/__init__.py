"""The outbox in a database of Django's.

    INSTALLED_APPS = [..., "rota.outbox.django"]        # and `manage.py migrate`

    from rota.outbox.django import Outbox
    outbox = Outbox()                                   # Outbox(using="orders") for another database than the default

    with transaction.atomic():
        order = Order.objects.create(...)
        outbox.enqueue(confirm, order.pk)
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from rota.client.calls.handle import JobHandle
from rota.client.tasks.task import Target, Task, as_task
from rota.client.wire.keyring import Keyring

from ..handle import OutboxHandle
from ..rows import NewRow, Signer, row_of

if TYPE_CHECKING:
    from ..relay import Relay
    from .rows import DjangoRows

P = ParamSpec("P")
R = TypeVar("R")


class Outbox:
    """The table `rota_outbox` in one of the project's databases.

    Args:
        using: the database's alias.
        key: the file with the signing keys (or a Keyring), to sign rows with; else `ROTA_KEY_FILE`.
        notify: wake the relay by NOTIFY when a transaction is committed (Postgres only). Without, it looks by itself,
            every second.

    Raises:
        ConfigError: the key file is not usable.
    """

    def __init__(
        self, using: str = "default", *, key: Keyring | str | PathLike[str] | None = None, notify: bool = True
    ) -> None:
        self.using = using
        self._key = key
        self._signer = Signer(key)
        self._notify = notify

    @overload
    def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    def enqueue(self, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]: ...
    def enqueue(self, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue one job in the transaction that is open on this database (`transaction.atomic`); without one, it is
        committed at once. The handle has its id at once.

        Raises:
            InvalidJob, NotSerializable, JobTooLarge: nothing was written.
            What the database raises.
        """
        row = self._row(task, args, kwargs)
        _insert(self.using, row, self._notify)
        return OutboxHandle(row.bundle)

    async def aenqueue(self, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """`enqueue` for `async def` views. Django has no transactions there: this row is committed by itself."""
        from asgiref.sync import sync_to_async

        row = self._row(task, args, kwargs)
        await sync_to_async(_insert)(self.using, row, self._notify)
        return OutboxHandle(row.bundle)

    def rows(self) -> DjangoRows:
        """The table, as a relay sees it."""
        from .rows import DjangoRows

        return DjangoRows(self.using)

    def relay(self, name: str = "default", **options: Any) -> Relay:
        """What moves the rows into rota, as `manage.py rota_outbox` runs it: `Relay` explains the options."""
        from ..relay import Relay

        return Relay(self.rows(), name, key=self._key, **options)

    def _row(self, task: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewRow:
        return row_of(as_task(task).order(args, kwargs), self._signer.keyring)


def _insert(using: str, row: NewRow, notify: bool) -> None:
    from django.db import connections

    from .models import OutboxRow

    OutboxRow.objects.using(using).create(**row._asdict())
    connection = connections[using]
    if notify and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [OutboxRow._meta.db_table])
