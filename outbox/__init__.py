"""The outbox: jobs that are enqueued in the transaction of your own database, with your data or not at all.

    from rota.outbox.sqlalchemy import Outbox       # or rota.outbox.django

    outbox = Outbox(Base.metadata)
    with Session(engine) as session:
        session.add(order)
        outbox.enqueue(session, confirm, order.id)
        session.commit()

`enqueue` writes a row; a relay (`rota outbox run`, or `outbox.relay(engine)` beside the application) moves rows into
rota, in order, and deletes them. The name of a row's job is in the row, so a move that is repeated is the same move.

Nothing is imported here: neither SQLAlchemy nor Django is needed by who uses the other, or none.
"""
