"""The port's certificate is the one on disk, and never half of one."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from rota.client.errors import ConfigError
from rota.cluster.port.tls import serving


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """A self-signed one: (certificate, key)."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", "new.key", "-out", "new.pem", "-subj", f"/CN={name}"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return (folder / "new.pem").read_text(), (folder / "new.key").read_text()


async def served(port: int) -> bytes:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    assert shown
    return shown


async def test_a_renewed_certificate_is_served_to_the_next_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert_file, key_file = tmp_path / "http.pem", tmp_path / "http.key"
    pairs = [certificate(tmp_path, name) for name in ("first", "second")]
    as_sent = [ssl.PEM_cert_to_DER_cert(cert) for cert, _ in pairs]
    cert_file.write_text(pairs[0][0])
    key_file.write_text(pairs[0][1])
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0,
                                        ssl=serving(str(cert_file), str(key_file)))
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await served(port) == as_sent[0]
        cert_file.write_text(pairs[1][0])       # its key is still to come
        assert await served(port) == as_sent[0]
        assert await served(port) == as_sent[0]
        key_file.unlink()
        assert await served(port) == as_sent[0]
        key_file.write_text(pairs[1][1][:100])
        assert await served(port) == as_sent[0]
        key_file.write_text(pairs[1][1])
        assert await served(port) == as_sent[1]
        assert "goes on with the certificate that it has" in caplog.text


def test_what_is_no_pair_at_first_is_a_wrong_setting(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path, "first")
    (tmp_path / "http.pem").write_text(cert)
    (tmp_path / "http.key").write_text(certificate(tmp_path, "second")[1])
    with pytest.raises(ConfigError, match="--http-key"):
        serving(str(tmp_path / "http.pem"), str(tmp_path / "http.key"))
