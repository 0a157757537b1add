"""A debounce: a document is indexed once it has not been changed for a moment, however often it was changed before.

    rota dev --app debounced_index  # a node
    python debounced_index.py       # in another terminal: types a text, and has it indexed as it is at the end

Each change enqueues a job that takes the place of the one before (`on_conflict="replace"`) and is put off. The key is
held until the job has begun, so a change that comes while it runs is not lost: it gets a job of its own.
"""

import sysconfig
from pathlib import Path

import rota

QUIET_S = 0.5


@rota.task(unique="document", unique_until="begun", on_conflict="replace")
def index(document: str, text: str) -> dict[str, int]:
    words: dict[str, int] = {}
    for word in text.lower().split():
        words[word] = words.get(word, 0) + 1
    return words


def main() -> None:
    text = (Path(sysconfig.get_path("stdlib")) / "asyncio" / "base_events.py").read_text()
    indexing = rota.NamedTask("debounced_index:index").using(
        unique_key="base_events", unique_until="begun", on_conflict="replace", run_after=QUIET_S,
    )
    changes = [indexing.enqueue("base_events", text[: len(text) * part // 40]) for part in range(1, 41)]
    words = changes[-1].result(timeout=60)
    replaced = sum(map(_was_replaced, changes[:-1]))
    indexed = len(changes) - replaced
    print(f"{len(changes)} changes, {indexed} indexed: {len(words)} words, {sum(words.values())} in all")


def _was_replaced(job: rota.JobHandle[dict[str, int]]) -> bool:
    try:
        job.result(timeout=10)
    except rota.JobCancelled:
        return True
    return False


if __name__ == "__main__":
    main()
