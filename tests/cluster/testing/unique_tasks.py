"""What the tests of unique and expiring jobs run."""

from __future__ import annotations

import threading

import rota

events: list[str] = []
gate = threading.Event()


@rota.task(unique="customer", max_attempts=1)
def sync_customer(customer: str, full: bool = False) -> str:
    events.append(f"sync {customer} {full}")
    return customer


@rota.task(unique=True, max_attempts=2, backoff_base=60, backoff_cap=60)
def all_arguments(number: int, words: tuple[str, ...] = ()) -> int:
    events.append(f"all {number}")
    if number < 0:
        raise ValueError("negative")
    return number


@rota.task(unique=lambda name, text="": name.lower(), unique_until="begun", on_conflict="replace")
def debounced(name: str, text: str = "") -> str:
    events.append(f"{name} {text}")
    gate.wait(60)
    return text


@rota.task
def plain(text: str = "") -> str:
    events.append(f"plain {text}")
    return text


@rota.task(expires=30, max_attempts=5, backoff_base=60, backoff_cap=60)
def fleeting(error: str = "") -> str:
    events.append(f"fleeting {error}")
    if error:
        raise ValueError(error)
    return "in time"


@rota.task(expires=30)
async def fleeting_async() -> str:
    events.append("fleeting")
    return "in time"


strict = rota.Queue("strict", serial=True)


@rota.task(expires=30, queue=strict, max_attempts=1)
def fleeting_in_line() -> str:
    events.append("fleeting in line")
    if len(events) == 1:
        raise ValueError("no")
    return "after all"


@rota.task(rate="2/hour", max_attempts=1)
def seldom(number: int) -> int:
    events.append(f"seldom {number}")
    return number


@rota.task(rate_per_key="1/hour, burst 2", key="host")
async def crawl(host: str, page: int = 0) -> str:
    events.append(f"{host} {page}")
    return host


@rota.task(requires={"gpu", "large"})
def train(model: str) -> str:
    return model


@rota.task(rate_per_key="1/hour", rate_key="host", max_per_key=1, key="account")
def fetch(host: str, account: str) -> str:
    events.append(f"{host} {account}")
    return host


@rota.task(weight=3)
def render(film: str) -> str:
    events.append(f"begin {film}")
    gate.wait(60)
    events.append(f"end {film}")
    return film


@rota.task(fair_key="tenant")
def export(tenant: str, number: int) -> str:
    events.append(f"{tenant} {number}")
    return tenant


class Render(rota.Worker, weight=2, fair_key="tenant", requires={"gpu"}):
    def perform(self, tenant: str) -> str:
        return tenant


class Sync(rota.Worker, unique="customer"):
    def perform(self, customer: str, full: bool = False) -> str:
        return customer
