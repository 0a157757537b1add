"""The cluster as its users run it: containers, killed, paused, cut off, restarted and scaled.

Whatever happens, every acknowledged job ends, and none runs twice without a reason. Needs a Docker engine with compose.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import docker
import pytest

from .project import PORTS, TTL_S, Load, Project

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    for command in ("info", "compose version"):     # not by the library: it leaves a socket open if nobody answers
        try:
            subprocess.run(["docker", *command.split()], capture_output=True, check=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no Docker engine with compose here: {getattr(error, 'stderr', None) or error}")
    engine = docker.from_env(timeout=120)
    project = Project(engine, tmp_path_factory.mktemp("compose"))
    project.compose("down", "--volumes", "--remove-orphans")
    try:
        project.compose("build")
        project.up(3)
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "2")
        engine.close()


@pytest.fixture(autouse=True)
def three_nodes(project: Project) -> None:
    """Each test begins with three nodes and three etcd members, whatever the one before did."""
    project.up(3)


def test_a_job_from_the_host_runs_in_a_container(project: Project) -> None:
    with Load(project) as load:
        load.wait_acknowledged(20)
    load.check_repeats(lost=())
    with project.client() as client:
        nodes = client.nodes()
    assert {node.node for node in nodes} == project.members()
    assert [node.node for node in nodes if node.master] == [project.master()]


def test_the_image_is_small_and_not_root(project: Project) -> None:
    container = project.container(project.master())
    status, output = container.exec_run(["id", "-u"])
    assert (status, output.strip()) == (0, b"10001")
    guard = container.exec_run(["cat", "/proc/1/cmdline"]).output.replace(b"\0", b" ")
    assert b"guard.py" in guard
    assert container.attrs["State"]["Health"]["Status"] == "healthy"
    base = project.engine.images.get("python:3.13-slim").attrs["Size"]
    assert project.engine.images.get("rota-test").attrs["Size"] - base < 120 * 1024**2


def test_ports_are_published_on_loopback_only(project: Project) -> None:
    for node in project.members():
        (published,) = project.container(node).attrs["NetworkSettings"]["Ports"]["4100/tcp"]
        assert published["HostIp"] == "127.0.0.1"
        assert int(published["HostPort"]) in PORTS


def test_a_watcher_sees_a_node_go_and_come(project: Project) -> None:
    """As deploy/README.md says, but from a given revision on, so that nothing can be missed."""
    (gone, *_) = project.members() - {project.master()}
    prefix = "/rota/default/nodes/"
    watching = subprocess.Popen(
        ["docker", "exec", "rota-test-etcd-1-1", "etcdctl", "watch", "--prefix", prefix,
         f"--rev={project.revision() + 1}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdout is not None
    seen: list[str] = []
    try:
        project.container(gone).restart(timeout=10)
        while not (seen and seen[-1].startswith("PUT") and gone not in seen[-1]):   # the suite's time limit ends this
            line = watching.stdout.readline().strip()
            if line in ("PUT", "DELETE"):
                seen.append(f"{line} {watching.stdout.readline().strip().removeprefix(prefix)}")
    finally:
        watching.terminate()
        watching.wait()
        watching.stdout.close()
    assert seen[:2] == [f"PUT {gone}", f"DELETE {gone}"]        # it says that it is draining, then it goes
    assert seen[2].startswith(f"PUT {gone.rpartition('-')[0]}-")


def test_the_masters_container_is_killed(project: Project) -> None:
    master = project.master()
    with Load(project) as load:
        load.wait_acknowledged(20)
        project.container(master).kill()
        killed = time.monotonic()
        project.wait_for("another master", lambda: project.master() not in ("", master))
        assert time.monotonic() - killed < TTL_S + 5      # a second of its own, and what etcdctl in a container takes
        load.wait_acknowledged(20)
    load.check_repeats(lost=[master])


def test_an_etcd_member_is_killed(project: Project) -> None:
    with Load(project) as load:
        load.wait_acknowledged(20)
        project.service("etcd-2").kill()
        load.wait_acknowledged(60)
        project.compose("up", "--detach", "--wait", "etcd-2")
        load.wait_acknowledged(20)
    load.check_repeats(lost=())


def test_a_node_is_paused_past_its_lease(project: Project) -> None:
    master = project.master()
    container = project.container(master)
    with Load(project) as load:
        load.wait_acknowledged(20)
        container.pause()
        try:
            project.wait_for("another master", lambda: project.master() not in ("", master))
            load.wait_acknowledged(40)
        finally:
            container.unpause()
        # It comes back as another member: the old name is never used again.
        host = master.rpartition("-")[0]
        project.wait_for("its return", lambda: any(name.startswith(host) for name in project.members() - {master}))
        load.wait_acknowledged(20)
    load.check_repeats(lost=[master])


def test_the_master_is_cut_off_and_reconnected(project: Project) -> None:
    master = project.master()
    container, network = project.container(master), project.network()
    with Load(project) as load:
        load.wait_acknowledged(20)
        network.disconnect(container)
        try:
            project.wait_for("another master", lambda: project.master() not in ("", master))
            load.wait_acknowledged(40)
        finally:
            network.connect(container)
        host = master.rpartition("-")[0]
        project.wait_for("its return", lambda: any(name.startswith(host) for name in project.members() - {master}))
        load.wait_acknowledged(20)
    load.check_repeats(lost=[master])


def test_everything_is_restarted(project: Project) -> None:
    before = project.members()
    with Load(project) as load:
        load.wait_acknowledged(40)
        project.compose("restart", "--timeout", "10")
        project.up(3)
        load.wait_acknowledged(20)
    load.check_repeats(lost=before)


def test_scaled_to_five_and_back_to_two(project: Project) -> None:
    with Load(project) as load:
        load.wait_acknowledged(20)
        project.up(5)
        load.wait_acknowledged(60)
        project.up(2)
        load.wait_acknowledged(40)
    load.check_repeats(lost=())     # those that left were asked to: nothing was run again
