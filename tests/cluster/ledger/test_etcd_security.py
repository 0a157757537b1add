"""TLS with certificates on both sides, and users with passwords."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aetcd import rpc

from rota.client import errors
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, free_port
from rota.cluster.ledger.channels import GrpcMember
from rota.cluster.ledger.etcd import EtcdConfig, EtcdLedger
from rota.cluster.ledger.ledger import Condition, Put, Target, Txn, prefix_end

ROOT_PASSWORD, PASSWORD = "correct horse", "battery staple"
OURS = b"/rota/ours/"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """ca.pem, and server and client certificates that it signed; other.pem, which signed nothing."""
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for name in ("server", "client"):
        openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(    # all that Python 3.13 asks for
            "subjectAltName=IP:127.0.0.1,DNS:etcd.example\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@asynccontextmanager
async def tls_etcd(folder: Path, certificates: Path, binary: Path | None) -> AsyncIterator[EmbeddedEtcd]:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    extra = (
        f"--cert-file={certificates / 'server.pem'}", f"--key-file={certificates / 'server.key'}",
        f"--trusted-ca-file={certificates / 'ca.pem'}", "--client-cert-auth",
    )
    async with EmbeddedEtcd(EmbeddedConfig(folder, binary=binary, tcp=True, tls=context, extra=extra)) as server:
        yield server


async def test_tls(tmp_path: Path, certificates: Path, etcd_binary: Path | None) -> None:
    async with tls_etcd(tmp_path, certificates, etcd_binary) as server:
        good = EtcdConfig(
            (server.endpoint,), ca_cert=certificates / "ca.pem", cert=certificates / "client.pem",
            key=certificates / "client.key", read_timeout_s=2.0,
        )
        async with EtcdLedger(good) as ledger:
            start = (await ledger.commit(Txn((), (Put(b"/a", b""),)))).revision
            async with ledger.watch(b"/a", from_revision=start) as watch:
                assert (await anext(aiter(watch))).events
        bare = (server.endpoint.removeprefix("https://"),)
        async with EtcdLedger(replace(good, endpoints=bare, server_name="etcd.example")) as ledger:
            assert (await ledger.read(b"/a")).records
        brief = replace(good, read_timeout_s=0.5)
        for wrong, reason in (
            (replace(brief, ca_cert=certificates / "other.pem"), "CERTIFICATE_VERIFY_FAILED"),
            (replace(brief, server_name="elsewhere.example"), "Hostname (Verification|mismatch)"),
            (replace(brief, cert=None, key=None), "no etcd endpoint"),
            (EtcdConfig((server.endpoint.replace("https", "http"),), read_timeout_s=0.5), "no etcd endpoint"),
        ):
            async with EtcdLedger(wrong) as ledger:
                with pytest.raises(errors.LedgerUnavailable, match=reason):
                    await ledger.read(b"/a")


async def test_a_renewed_certificate_is_picked_up(
    tmp_path: Path, certificates: Path, etcd_binary: Path | None
) -> None:
    trusted = tmp_path / "trusted.pem"
    shutil.copy(certificates / "other.pem", trusted)
    async with tls_etcd(tmp_path / "etcd", certificates, etcd_binary) as server:
        config = EtcdConfig(
            (server.endpoint,), ca_cert=trusted, cert=certificates / "client.pem", key=certificates / "client.key",
            read_timeout_s=0.3,
        )
        async with EtcdLedger(config) as ledger:
            with pytest.raises(errors.LedgerUnavailable):
                await ledger.read(b"/a")
            shutil.copy(certificates / "ca.pem", trusted)
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(errors.LedgerUnavailable):
                        await ledger.read(b"/a")
                        break


async def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    config = EtcdConfig(("https://127.0.0.1:1",), ca_cert=tmp_path / "none.pem")
    async with EtcdLedger(config) as ledger:
        with pytest.raises(errors.LedgerUnavailable, match=r"none\.pem"):      # it is being renewed, perhaps
            await ledger.read(b"/a")


class Administrator:
    """root, through etcd's own calls."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = GrpcMember(endpoint, EtcdConfig((endpoint,)))
        self._metadata: tuple[tuple[str, str], ...] = ()

    async def ask(self, name: str, request: Any) -> Any:
        stub = rpc.AuthStub(self._endpoint._open())
        return await getattr(stub, name)(request, metadata=self._metadata, timeout=10)

    async def log_in(self) -> None:
        answer = await self.ask("Authenticate", rpc.AuthenticateRequest(name="root", password=ROOT_PASSWORD))
        self._metadata = (("token", answer.token),)

    async def switch_on(self) -> None:
        """Users root (everything) and rota (our prefix), then authentication."""
        await self.ask("UserAdd", rpc.AuthUserAddRequest(name="root", password=ROOT_PASSWORD))
        await self.ask("RoleAdd", rpc.AuthRoleAddRequest(name="root"))
        await self.ask("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        await self.ask("UserAdd", rpc.AuthUserAddRequest(name="rota", password=PASSWORD))
        await self.ask("RoleAdd", rpc.AuthRoleAddRequest(name="ours"))
        await self.grant("ours", OURS)
        await self.ask("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="rota", role="ours"))
        await self.ask("AuthEnable", rpc.AuthEnableRequest())
        await self.log_in()

    async def grant(self, role: str, prefix: bytes) -> None:
        permission = rpc.Permission(permType=rpc.Permission.READWRITE, key=prefix, range_end=prefix_end(prefix))
        await self.ask("RoleGrantPermission", rpc.AuthRoleGrantPermissionRequest(name=role, perm=permission))

    async def close(self) -> None:
        await self._endpoint.close()


@asynccontextmanager
async def guarded_etcd(folder: Path, binary: Path | None) -> AsyncIterator[tuple[EmbeddedEtcd, Administrator]]:
    config = EmbeddedConfig(
        folder, binary=binary, tcp=True, client_port=free_port(), peer_port=free_port(), extra=("--bcrypt-cost=4",)
    )
    async with EmbeddedEtcd(config) as server:
        administrator = Administrator(server.endpoint)
        try:
            await administrator.switch_on()
            yield server, administrator
        finally:
            await administrator.close()


def config_for(server: EmbeddedEtcd, password: str = PASSWORD) -> EtcdConfig:
    return EtcdConfig((server.endpoint,), user="rota", password=password, progress_interval_s=0.2, read_timeout_s=4.0)


def logins(server: EmbeddedEtcd) -> int:
    with urllib.request.urlopen(f"{server.endpoint}/metrics", timeout=5) as page:
        for line in page.read().decode().splitlines():
            if line.startswith("grpc_server_started_total{") and '"Authenticate"' in line:
                return int(float(line.split()[-1]))
    return 0


async def test_users(tmp_path: Path, etcd_binary: Path | None) -> None:
    async with guarded_etcd(tmp_path, etcd_binary) as (server, administrator):
        async with EtcdLedger(config_for(server)) as ledger:
            start = (await ledger.commit(Txn((), (Put(OURS + b"a", b""),)))).revision
            async with ledger.watch(OURS, prefix_end(OURS), from_revision=start) as watch:
                assert (await anext(aiter(watch))).events
                await ledger.grant(10, 5)
                assert await ledger.keep_alive(5) == 10
                assert (await ledger.status()).version == server.version
                with pytest.raises(errors.LedgerDenied):
                    await ledger.commit(Txn((), (Put(b"/foreign", b""),)))
                with pytest.raises(errors.LedgerDenied):
                    await ledger.read(b"/foreign")
                async with ledger.watch(b"/foreign", prefix_end(b"/foreign"), from_revision=start) as foreign:
                    # Any change of users makes tokens "old" for a moment.
                    await administrator.grant("ours", b"/foreign")
                    assert (await ledger.commit(Txn((), (Put(b"/foreign", b""),)))).succeeded
                    assert (await anext(aiter(foreign))).events      # refused at first, it has waited
                await ledger.commit(Txn((), (Put(OURS + b"a", b"1"),)))
                while not (changes := await anext(aiter(watch))).events:
                    pass
                assert changes.events[0].record.value == b"1"
        async with EtcdLedger(config_for(server, "wrong")) as ledger:
            with pytest.raises(errors.LedgerDenied, match="authentication failed"):
                await ledger.read(OURS)
        async with EtcdLedger(EtcdConfig((server.endpoint,))) as ledger:
            with pytest.raises(errors.LedgerDenied):
                await ledger.read(OURS)


async def test_the_password_is_read_again_when_it_is_refused(
    tmp_path: Path, etcd_binary: Path | None
) -> None:
    """Changed in etcd first, in its file later. Until then etcd, which pays dearly for each, is asked now and then."""
    password_file = tmp_path / "password"
    password_file.write_text(f"{PASSWORD}\n")
    async with guarded_etcd(tmp_path / "etcd", etcd_binary) as (server, administrator):
        config = replace(config_for(server), password="", password_file=password_file)
        async with EtcdLedger(config) as ledger:
            start = (await ledger.commit(Txn((), (Put(OURS + b"a", b""),)))).revision
            async with ledger.watch(OURS, prefix_end(OURS), from_revision=start + 1) as watch:
                change = rpc.AuthUserChangePasswordRequest(name="rota", password="something new")
                await administrator.ask("UserChangePassword", change)
                asked = logins(server)
                for _ in range(5):
                    with pytest.raises(errors.LedgerDenied, match="authentication failed"):
                        await ledger.read(OURS)
                assert logins(server) <= asked + 1
                password_file.unlink()
                with pytest.raises(errors.LedgerDenied, match="password"):
                    await ledger.read(OURS)
                password_file.write_text("something new\n")
                assert (await ledger.commit(Txn((), (Put(OURS + b"b", b""),)))).succeeded
                while not (await anext(aiter(watch))).events:
                    pass
                await administrator.log_in()        # its own token is of before the change
                change = rpc.AuthUserChangePasswordRequest(name="rota", password=PASSWORD)
                await administrator.ask("UserChangePassword", change)
                password_file.write_text(PASSWORD)
                assert (await ledger.read(OURS)).revision


async def test_one_login_for_all_after_a_restart(tmp_path: Path, etcd_binary: Path | None) -> None:
    """A restarted etcd has forgotten its tokens: everyone is refused at once, and one of them logs in for all."""
    async with guarded_etcd(tmp_path, etcd_binary) as (server, _), EtcdLedger(config_for(server)) as ledger:
        start = (await ledger.commit(Txn((), (Put(OURS + b"a", b""),)))).revision
        async with ledger.watch(OURS, prefix_end(OURS), from_revision=start + 1) as watch:
            await server.stop()
            await server.start()
            await ledger.read(OURS)
            writes = [Txn((Condition(OURS, Target.CREATE, "==", 0),), (Put(OURS + b"%d" % i, b""),)) for i in range(20)]
            done = await asyncio.gather(*map(ledger.commit, writes))
            assert all(result.succeeded for result in done)
            events = 0
            async for changes in watch:
                events += len(changes.events)
                if events == 20:
                    break
        assert logins(server) <= 2      # one more if the watch came first


async def test_a_user_where_there_are_none(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    """A password is no obstacle on an etcd without authentication."""
    async with EtcdLedger(config_for(etcd)) as ledger:
        assert (await ledger.commit(Txn((), (Put(f"/{cluster_name}".encode(), b""),)))).succeeded
