"""The demo's onlooker and its verdict; the whole performance is in tests/acceptance."""

from __future__ import annotations

from pathlib import Path

import pytest

from rota.cluster.demo.observer import Observer
from rota.cluster.demo.tasks import Tally, look_into
from rota.cluster.demo.verdict import Answer, compare, count_beside, count_directly
from rota.cluster.ledger.ledger import Changes, Event, Record
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import Claim, Member, Token, encode

KEYS = Keys("demo")
BUNDLE = "k3f9q2m7xa5t-00000001"
MEMBER = Member("http://127.0.0.1:1", ["*"], {}, {}, "3.11", "0", 0.0)


class Scene:
    """Feeds an observer one revision after another; revision n happens at time n."""

    def __init__(self) -> None:
        self.observer = Observer(KEYS)
        self._revision = 0
        self._born: dict[bytes, tuple[int, int]] = {}

    def put(self, key: bytes, value: bytes) -> Event:
        created, version = self._born.get(key, (self._revision + 1, 0))
        self._born[key] = (created, version + 1)
        return Event(False, Record(key, value, created, self._revision + 1, version + 1))

    def delete(self, key: bytes) -> Event:
        self._born.pop(key, None)
        return Event(True, Record(key, b"", 0, self._revision + 1, 0))

    def happens(self, *events: Event) -> None:
        self._revision += 1
        self.observer.take(Changes(self._revision, tuple(events)), float(self._revision))

    def join(self, node: str, lease: int) -> None:
        self.happens(self.put(KEYS.node(node), encode(MEMBER)))
        self.happens(self.put(KEYS.candidate(lease), node.encode()))

    def claim(self, node: str, bundle: str, count: int, done: str = "") -> Event:
        return self.put(KEYS.claim(node, bundle), encode(Claim("m:f", "q", 0, 1, count, "sync", 0, 1, done, fence=1)))

    def token(self, bundle: str, count: int) -> Event:
        return self.put(KEYS.job("q", 0, 1, bundle), encode(Token("m:f", "q", 0, 1, count, "sync", 0)))


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.join("a", 1)
    scene.join("b", 2)
    return scene


def test_the_first_candidate_is_master(scene: Scene) -> None:
    assert scene.observer.master == "a"
    scene.happens(scene.delete(KEYS.candidate(1)))
    assert scene.observer.master == "b"


def test_jobs_are_counted_where_they_finish(scene: Scene) -> None:
    scene.happens(scene.claim("a", BUNDLE, 4))
    scene.happens(scene.claim("a", BUNDLE, 4, done="3"))
    assert (scene.observer.nodes["a"].finished, scene.observer.claimed) == (2, 2)
    scene.happens(scene.delete(KEYS.claim("a", BUNDLE)))
    assert (scene.observer.nodes["a"].finished, scene.observer.claimed) == (4, 0)


def test_jobs_that_are_given_back_have_not_finished(scene: Scene) -> None:
    scene.happens(scene.claim("a", BUNDLE, 4))
    scene.happens(scene.claim("a", BUNDLE, 4, done="e"), scene.token(f"{BUNDLE}.1", 1), scene.token(f"{BUNDLE}.2", 1))
    assert scene.observer.nodes["a"].finished == 1
    scene.happens(scene.delete(KEYS.claim("a", BUNDLE)), scene.token(BUNDLE, 1))
    assert scene.observer.nodes["a"].finished == 1


def test_a_takeover_is_timed(scene: Scene) -> None:
    scene.happens(scene.claim("a", BUNDLE, 3))
    scene.happens(scene.delete(KEYS.node("a")), scene.delete(KEYS.candidate(1)))        # one lease, one revision: 6
    scene.happens(scene.delete(KEYS.claim("a", BUNDLE)), *(scene.token(f"{BUNDLE}.{n}", 1) for n in range(3)))
    scene.happens(scene.claim("b", f"{BUNDLE}.0", 1))
    scene.happens(scene.claim("b", f"{BUNDLE}.1", 1), scene.claim("b", f"{BUNDLE}.2", 1))
    (loss,) = scene.observer.losses
    assert (loss.node, loss.was_master, loss.jobs) == ("a", True, 3)
    assert (loss.elected, loss.elected_at, loss.at, loss.first_at, loss.all_at) == ("b", 6.0, 6.0, 8.0, 9.0)
    assert scene.observer.nodes["a"].finished == 0
    assert [seen.name for seen in scene.observer.members] == ["b"]


def test_garbage_in_the_store_is_no_end(scene: Scene) -> None:
    scene.happens(scene.put(KEYS.claims + b"nonsense", b"{"), scene.put(KEYS.claim("a", BUNDLE), b"garbage"))
    scene.happens(scene.put(KEYS.jobs + b"q", b"{}"), scene.put(KEYS.node("c"), b"[]"))
    assert scene.observer.nodes["c"].alive


def test_what_is_counted_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text("import os.path, re as r\nx = y = 1\ndef f():\n    z = 1\nclass C: pass\nx = 2\n")
    tally = look_into(file)
    assert (tally.lines, tally.names) == (6, 6)      # os, r, x, y, f, C
    assert tally.tokens > 20
    file.write_text("x = 1\n" * 10_000)
    assert look_into(file) == Tally(10_000, 1, 0)


@pytest.mark.parametrize(("outcomes", "good"), [
    ({"a": [Tally(1, 1, 1)], "b": ["SyntaxError: cut short"]}, True),
    ({"a": [Tally(1, 1, 1)]}, False),                                                   # one is missing
    ({"a": [Tally(1, 1, 1)], "b": ["SyntaxError: x", "SyntaxError: x"]}, False),        # one was counted twice
    ({"a": [Tally(1, 1, 2)], "b": ["SyntaxError: x"]}, False),                          # wrongly
    ({"a": [Tally(1, 1, 1)], "b": ["OSError: x"]}, False),                              # failed, but with another error
    ({"a": [Tally(1, 1, 1)], "b": ["SyntaxError: x"], "c": [Tally(0, 0, 0)]}, False),   # not asked for
])
def test_the_verdict(outcomes: dict[str, list[Answer]], good: bool) -> None:
    direct: dict[Path, Answer] = {Path("a"): Tally(1, 1, 1), Path("b"): "SyntaxError: in full length"}
    assert compare({Path(name): found for name, found in outcomes.items()}, direct).good is good


def test_counting_directly_takes_note_of_errors(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("x = 1\n")
    bad.write_text("def\n")
    answers = count_directly([good, bad])
    assert isinstance(answers[good], Tally)
    assert str(answers[bad]).startswith("SyntaxError: ")


async def test_counting_beside_the_cluster(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.py" for number in range(60)]
    for file in files:
        file.write_text("x = 1\n")
    progress: list[int] = []
    answers = await count_beside(files, progress.append)
    assert set(answers) == set(files) and progress == [25, 50, 60]
