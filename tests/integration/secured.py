"""An Apache Kafka with TLS, SCRAM and ACLs, a redis-server with TLS and an ACL user, and their CA.

Everything is made anew for a test session: no key and no certificate is kept.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
import trustme
from cryptography.hazmat.primitives import serialization

from stream.local import servers
from stream.local.servers import ChildServer, Listeners, free_ports

ADMIN_PASSWORD: Final = "adm1n-s3cret"
WORKER_PASSWORD: Final = "w0rker-s3cret"
INSPECTOR_PASSWORD: Final = "insp3ctor-s3cret"
GUEST_PASSWORD: Final = "gu3st-s3cret"
REDIS_PASSWORD: Final = "r3dis-s3cret"
REDIS_GUEST_PASSWORD: Final = "r3dis-gu3st"
WRONG_PASSWORD: Final = "wr0ng-s3cret"
NEW_PASSWORD: Final = "n3w-s3cret"
SECRETS: Final = (
    ADMIN_PASSWORD,
    WORKER_PASSWORD,
    INSPECTOR_PASSWORD,
    GUEST_PASSWORD,
    REDIS_PASSWORD,
    REDIS_GUEST_PASSWORD,
    WRONG_PASSWORD,
    NEW_PASSWORD,
)
DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of one session: two authorities, and servers' and clients' key pairs."""

    ca: Path
    other_ca: Path
    server: Path  # key and certificates in one file, as Kafka reads them
    expired: Path
    server_cert: Path  # the same in two, as Redis reads them
    server_key: Path
    expired_cert: Path
    expired_key: Path
    client_cert: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Write everything into `folder`."""
    authority, stranger = trustme.CA(), trustme.CA()
    ca, other = folder / "ca.pem", folder / "other-ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    stranger.cert_pem.write_to_path(str(other))
    now = dt.datetime.now(dt.UTC)
    good = authority.issue_cert("127.0.0.1", "localhost")
    old = authority.issue_cert("127.0.0.1", not_before=now - 9 * DAY, not_after=now - DAY)
    client = authority.issue_cert("emotrack-worker@example.org", common_name="emotrack-worker")
    server, server_cert, server_key = written(folder, "server", good)
    expired, expired_cert, expired_key = written(folder, "expired", old)
    _, client_cert, client_key = written(folder, "client", client)
    return Certificates(
        ca,
        other,
        server,
        expired,
        server_cert,
        server_key,
        expired_cert,
        expired_key,
        client_cert,
        client_key,
    )


def written(folder: Path, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path, Path]:
    """One key pair as a single file, a certificate and a key; the key is PKCS 8 as Kafka asks."""
    loaded = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    key = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    both, cert, alone = (folder / f"{name}{kind}.pem" for kind in ("", "-cert", "-key"))
    both.write_bytes(key + chain)
    cert.write_bytes(chain)
    alone.write_bytes(key)
    return both, cert, alone


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """One broker: SASL_SSL, the same with an expired certificate, mutual TLS, and plain TCP."""

    bootstrap: str
    expired: str
    mutual: str
    plain: str  # for the tests' own set-up: its anonymous user may do everything
    certificates: Certificates


@contextlib.contextmanager
def secured_kafka(folder: Path, jars: Path, certificates: Certificates) -> Iterator[SecuredKafka]:
    """Run it until the block ends. SCRAM users: `admin`, and others without rights."""
    formatting: list[str] = []
    users = {
        "admin": ADMIN_PASSWORD,
        "worker": WORKER_PASSWORD,
        "inspector": INSPECTOR_PASSWORD,
        "guest": GUEST_PASSWORD,
    }
    for user, password in users.items():
        formatting += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
    told = Listeners(
        {"SASL": "SASL_SSL", "EXPIRED": "SASL_SSL", "MUTUAL": "SSL"},
        kafka_security(certificates),
        formatting,
    )
    with servers.apache_kafka(folder, jars, told) as running:
        at = running.listeners
        yield SecuredKafka(at["SASL"], at["EXPIRED"], at["MUTUAL"], running.bootstrap, certificates)


def kafka_security(certificates: Certificates) -> dict[str, str]:
    """The broker's properties beyond its listeners' addresses."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:admin;User:emotrack-worker",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
    }
    pairs = {"sasl": certificates.server, "mutual": certificates.server}
    for name, pair in (pairs | {"expired": certificates.expired}).items():
        head = f"listener.name.{name}."
        properties |= {
            f"{head}ssl.keystore.type": "PEM",
            f"{head}ssl.keystore.location": str(pair),
            f"{head}ssl.truststore.type": "PEM",
            f"{head}ssl.truststore.location": str(certificates.ca),
            f"{head}sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{head}scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }
    return properties


@dataclass(frozen=True, slots=True)
class SecuredRedis:
    """A redis-server that speaks TLS only; `url` has no user and no password."""

    url: str
    port: int
    certificates: Certificates

    def acl(self, *rule: str) -> None:
        """Set an ACL user."""
        with redis.Redis(
            port=self.port, ssl=True, ssl_ca_certs=str(self.certificates.ca), host="127.0.0.1"
        ) as client:
            client.execute_command("ACL", "SETUSER", *rule)


@contextlib.contextmanager
def secured_redis(
    folder: Path, certificates: Certificates, *, expired: bool = False
) -> Iterator[SecuredRedis]:
    """Run it until the block ends."""
    program = servers.need("redis-server", "install Redis 7 or newer")
    (port,) = free_ports(1)
    cert = certificates.expired_cert if expired else certificates.server_cert
    key = certificates.expired_key if expired else certificates.server_key
    argv = [program, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"]
    argv += ["--dir", str(folder), "--save", "", "--tls-auth-clients", "no"]
    argv += ["--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    argv += ["--tls-ca-cert-file", str(certificates.ca)]
    server = ChildServer("redis", argv, folder)
    try:
        server.start(lambda: servers.answers(port))
        yield SecuredRedis(f"rediss://127.0.0.1:{port}/0", port, certificates)
    finally:
        server.stop()
