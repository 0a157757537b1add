"""A web view that enqueues in its database's transaction, and one that rolls back.

    rota dev --app orders_outbox        # in this folder
    python orders_outbox.py             # in another terminal; `pip install 'rota[outbox]'` brings SQLAlchemy
    curl -d 'tea' http://127.0.0.1:8081/orders          # -> {"order": 1, "job": "k3f9q2m7xa5t_00000000_0"}
    curl -d '' http://127.0.0.1:8081/orders             # -> 400: nothing was ordered, and nobody is written to
    curl http://127.0.0.1:8081/orders                   # -> {"orders": ["tea"], "confirmed": ["tea"]}
"""

import argparse
import tempfile
from pathlib import Path

import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import rota
from rota.outbox.sqlalchemy import Outbox

DATABASE = f"sqlite:///{Path(tempfile.gettempdir()) / 'rota-orders.db'}"
engine = sa.create_engine(DATABASE, connect_args={"timeout": 30})


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str]
    confirmed: Mapped[bool] = mapped_column(default=False)


outbox = Outbox(Base.metadata)


@rota.task
def confirm(order_id: int) -> None:
    """Begins after the commit: its order is there."""
    with Session(engine) as session:
        session.get_one(Order, order_id).confirmed = True
        session.commit()


async def order(request: web.Request) -> web.Response:
    what = await request.text()
    with Session(engine) as session:        # leaving it without a commit rolls back
        made = Order(what=what)
        session.add(made)
        session.flush()
        job = outbox.enqueue(session, "orders_outbox:confirm", made.id)     # by name: this file runs as a script
        if not what:
            raise web.HTTPBadRequest(text="an order says what")     # the order is gone, and so is its job
        session.commit()
        return web.json_response({"order": made.id, "job": job.id}, status=201)


async def orders(_request: web.Request) -> web.Response:
    with Session(engine) as session:
        found = session.scalars(sa.select(Order).order_by(Order.id)).all()
    return web.json_response({
        "orders": [one.what for one in found], "confirmed": [one.what for one in found if one.confirmed],
    })


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8081)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    app = web.Application()
    app.add_routes([web.post("/orders", order), web.get("/orders", orders)])
    with outbox.relay(engine, "orders", poll=0.1):      # beside the application; or `rota outbox run` elsewhere
        web.run_app(app, host="127.0.0.1", port=parser.parse_args().port)
