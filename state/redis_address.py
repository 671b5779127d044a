"""Addresses of a Redis: which are read, and which options one may carry. Knows no client library.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]      rediss://…: with TLS      unix://PATH[?db=DB]
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DB]
    rediss+sentinel://…: with TLS, to the sentinels and to the server they name

User and password are the server's, also where sentinels name it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

FORMS: Final = (
    "must read redis://HOST:PORT/DB, rediss://HOST:PORT/DB, unix://PATH or "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"
)
SENTINEL_PORT: Final = 26_379
SERVER_PORT: Final = 6_379
# What redis-py's addresses may say and no other setting of ours does.
_OPTIONS: Final = ("client_name", "db", "health_check_interval", "socket_keepalive")
_OF_TLS: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_CREDENTIALS: Final = ("password", "username")
_VERIFY: Final = {"ssl_cert_reqs": ("required",), "ssl_check_hostname": ("true", "yes", "1")}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The parts of an address."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]  # sentinels, or one server; none for a socket
    shown: str  # without user, password and options
    service: str | None = None  # the name that sentinels know the server by
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> bool:
        """True where the connection is encrypted."""
        return self.scheme.startswith("rediss")


def read_address(url: str) -> RedisAddress:
    """Return the parts of an address. Raises ValueError with a sentence that holds no secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(FORMS) from None
    if parts.scheme not in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
        raise ValueError(FORMS)
    if parts.fragment:
        raise ValueError(f"{FORMS}; a # in a password is written %23")
    _require_options(parts)
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError(FORMS)
        return RedisAddress(parts.scheme, (), unquote(parts.path))
    return _with_hosts(parts)


def _with_hosts(parts: SplitResult) -> RedisAddress:
    """Return the parts of an address that names a server or sentinels by host and port."""
    sentinels = parts.scheme.endswith("+sentinel")
    credentials, _, netloc = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts = tuple(
        _host_and_port(one, SENTINEL_PORT if sentinels else SERVER_PORT)
        for one in netloc.split(",")
    )
    if len(hosts) > 1 and not sentinels:
        raise ValueError(
            "names several hosts: sentinels are named by redis+sentinel://…/SERVICE, a cluster by "
            "one of its nodes and EMOTRACK_REDIS_CLUSTER=true"
        )
    shown = ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in hosts)
    service, path = None, parts.path.removeprefix("/")
    if sentinels:
        service, _, path = path.partition("/")
        if not unquote(service) or not netloc:
            raise ValueError("must read redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
        shown = f"{unquote(service)}, by the sentinels {shown}"
    if path and not (path.isascii() and path.isdigit()):
        raise ValueError(f"{FORMS}: DB is a number")
    return RedisAddress(
        parts.scheme,
        hosts,
        shown,
        None if service is None else unquote(service),
        int(path or 0),
        unquote(user) or None,
        unquote(password) or None,
    )


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    """Return the parts of HOST, HOST:PORT or [V6]:PORT. Raises ValueError."""
    try:
        one = urlsplit(f"//{text}")
        host, named = one.hostname or "localhost", one.port
        host.encode("idna")  # as the resolver will
    except UnicodeError:
        raise ValueError("names a host that can be none: a part of it is empty or long") from None
    except ValueError:
        raise ValueError(
            f"{FORMS}; in a password, / ? # and @ are written %2F %3F %23 and %40"
        ) from None
    return host, port if named is None else named


def _require_options(parts: SplitResult) -> None:
    """Refuse options that are unknown, have a setting of ours, or turn verification off."""
    allowed = [*_OPTIONS, *_CREDENTIALS]
    if parts.scheme == "rediss":
        allowed += _OF_TLS
    if parts.scheme.endswith("+sentinel"):
        allowed = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _VERIFY:
            if value.lower() not in _VERIFY[name]:
                raise ValueError(
                    f"has ?{name}, which would trust any server: leave it out, and name the "
                    "authority that signed the server's certificate in EMOTRACK_REDIS_CA_FILE"
                )
        elif name in _OF_TLS and not parts.scheme.startswith("rediss"):
            raise ValueError(f"has ?{name}, which needs rediss://")
        elif name not in allowed:
            known = f"known are {', '.join(sorted(allowed))}" if allowed else "none is known here"
            raise ValueError(f"has the unknown option {name!r} ({known}): leave it out")
        elif name in ("db", "health_check_interval") and not value.isdigit():
            raise ValueError(f"has ?{name}, which must be a number")
