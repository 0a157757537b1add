from django.db import connection

import rota

from .models import Order


@rota.task
def total(*cents):
    with connection.schema_editor() as editor:
        editor.create_model(Order)
    for one in cents:
        Order.objects.create(cents=one)
    return sum(order.cents for order in Order.objects.all())
