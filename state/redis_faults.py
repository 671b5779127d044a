"""Replies and failures of a Redis, each with what it means, its cure, and what a worker does.

The table of docs/reliability.md ("What a Redis may answer") is of these kinds. `StoreUnavailable`
is retried over a new connection, which resolves the address again; `StoreRefused` stops the worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import redis
from redis.exceptions import ClusterError, RedisClusterException
from redis.sentinel import MasterNotFoundError

from state.store import StoreError, StoreRefused, StoreUnavailable

Fault = redis.RedisError | RedisClusterException
CLUSTER_ERRORS: Final = ClusterError | RedisClusterException
_ANNOTATION: Final = re.compile(r"^Command # .*? of pipeline caused error: ", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of reply: the words it is known by, what it means, its cure."""

    name: str
    sign: re.Pattern[str]
    error: type[StoreError]
    says: str


def _kind(name: str, sign: str, error: type[StoreError], says: str) -> Kind:
    return Kind(name, re.compile(sign, re.IGNORECASE), error, says)


_LATER, _NEVER = StoreUnavailable, StoreRefused
_ACL: Final = "allow the user what the ACL line of docs/security.md does"
_NO_TLS: Final = "if it wants TLS, use rediss:// in EMOTRACK_REDIS_URL"
_PLAIN: Final = "if it does not speak TLS, use redis:// in EMOTRACK_REDIS_URL"

# The first that is found wins.
REPLIES: Final = (
    _kind(
        "no cluster",
        "Cluster mode is not enabled|cluster support disabled",
        _NEVER,
        "is no cluster: leave EMOTRACK_REDIS_CLUSTER unset",
    ),
    _kind(
        "no sentinel",
        "unknown command .?SENTINEL",
        _NEVER,
        "is no sentinel: name the sentinels' own ports, or a server by redis://HOST:PORT/DB",
    ),
    _kind(
        "sentinel right",
        r"^NOPERM.*sentinel\|",
        _NEVER,
        "refused us as a user of the sentinels: correct EMOTRACK_REDIS_SENTINEL_USERNAME, and "
        "allow it `+sentinel|masters`",
    ),
    _kind(
        "right",
        "^NOPERM|The user executing the script can't|ACL failure in script",
        _NEVER,
        f"refused us: correct user and password, and {_ACL}",
    ),
    _kind(
        "password wanted",
        "^NOAUTH",
        _NEVER,
        "wants a password: set EMOTRACK_REDIS_USERNAME and EMOTRACK_REDIS_PASSWORD (or its _FILE)",
    ),
    _kind(
        "no password there",
        "without any password configured|no password is set",
        _NEVER,
        "has no password for the default user, and we send one: leave EMOTRACK_REDIS_PASSWORD out, "
        "or set requirepass there",
    ),
    _kind(
        "password",
        "^WRONGPASS|invalid password|invalid username",
        _NEVER,
        f"refused us: correct user and password, and {_ACL}",
    ),
    _kind(
        "replica",
        "^READONLY",
        _LATER,
        "is a replica: the address must name the primary. After a failover we find it when the "
        "address (DNS, proxy, sentinels) does",
    ),
    _kind(
        "replica alone",
        "^MASTERDOWN",
        _LATER,
        "is a replica that lost its primary: the address must name the primary. After a failover "
        "we find it when the address (DNS, proxy, sentinels) does",
    ),
    _kind("loading", "^LOADING", _LATER, "is reading its data from disk: wait"),
    _kind(
        "too few replicas",
        "^NOREPLICAS",
        _LATER,
        "has fewer replicas than its min-replicas-to-write wants: start them, or look for the new "
        "primary if it was cut off",
    ),
    _kind(
        "disk",
        "^MISCONF",
        _LATER,
        "cannot save to its disk and so takes no writes: make room, or see its log",
    ),
    _kind(
        "full",
        "^OOM|command not allowed when used memory",
        _LATER,
        "is full: raise its maxmemory, or find whose keys fill it (`redis-cli --bigkeys`)",
    ),
    _kind(
        "busy",
        "^(BUSY|UNKILLABLE) ",
        _LATER,
        "runs a script that does not end: `redis-cli SCRIPT KILL` or `FUNCTION KILL`",
    ),
    _kind(
        "cluster later",
        "^(CLUSTERDOWN|TRYAGAIN) |TTL exhausted|slot.* not covered",
        _LATER,
        "serves some slots not now: `redis-cli --cluster check` shows which",
    ),
    _kind(
        "clients",
        "max number of clients",
        _LATER,
        "has no connection left: raise its maxclients, or find who holds them (`CLIENT LIST`)",
    ),
    _kind(
        "directory",
        "problem with LDAP",
        _LATER,
        "cannot ask its LDAP service about our password: see to that service",
    ),
    _kind(
        "protected",
        "^DENIED",
        _NEVER,
        "is in protected mode and takes no connection from another host: give it a password "
        "(requirepass or an ACL user), and name it in EMOTRACK_REDIS_PASSWORD",
    ),
    _kind(
        "function gone",
        "Function not found",
        _LATER,
        "lost our function again: who runs FUNCTION FLUSH or FLUSHALL there?",
    ),
    _kind(
        "no functions",
        "unknown command|unknown subcommand|unsupported command",
        _NEVER,
        "has no Functions: emotrack needs Redis >= 7 or Valkey, and no proxy that lacks FCALL",
    ),
    _kind(
        "database",
        "DB index is out of range|invalid DB index|SELECT is not allowed",
        _NEVER,
        "does not have this database: correct /DB in EMOTRACK_REDIS_URL (a cluster has only /0)",
    ),
    _kind("protocol", "^NOPROTO", _NEVER, "does not speak RESP 2, which every Redis >= 7 does"),
    _kind(
        "two slots",
        "^CROSSSLOT",
        _NEVER,
        "takes keys of one state for keys of two slots: a proxy that rewrites keys cannot be used",
    ),
    _kind(
        "another type",
        "^WRONGTYPE",
        _NEVER,
        "has a key of ours (et:…) with a value of another program: give emotrack a database of its "
        "own",
    ),
)
CLUSTER_NODE: Final = "is a node of a cluster: set EMOTRACK_REDIS_CLUSTER=true"

_CUT: Final = re.compile("closed|reset by peer|broken pipe", re.IGNORECASE)
# Failures of the connection, by the words of redis-py and of the system.
FAILURES: Final = (
    _kind("certificate", r"\[SSL|certificate", _LATER, "see to its TLS (docs/security.md)"),
    _kind(
        "name",
        "name or service not known|name resolution|nodename nor servname|"
        "no address associated|name does not resolve",
        _LATER,
        "no address is known for this host: correct its name, or see to the name server",
    ),
    _kind("refused", "connection refused", _LATER, "start it, or correct the address"),
    _kind("no socket", "no such file", _LATER, "start it, or correct the path"),
    _kind(
        "silence",
        "timeout|timed out",
        _LATER,
        "it does not answer in time: see whether it is overloaded, or a firewall drops packets",
    ),
    _kind("closed", _CUT.pattern, _LATER, "it closed the connection"),
)
_RAN: Final = (
    "; it restarts, or it or a proxy ends clients (`CLIENT KILL`, client-output-buffer-limit)"
)


def fault_of(error: Fault, here: str, *, running: bool, tls: bool = False) -> StoreError:
    """Return our error for one of redis-py.

    `here` names the server, `running` is true where it served us before: then what would be a
    wrong setting at the start is a change that may pass. `tls`: the address asks for TLS.
    """
    reply = reply_of(error)
    if isinstance(error, MasterNotFoundError):
        return _no_primary(reply, here)
    if isinstance(error, redis.InvalidResponse):
        return StoreUnavailable(
            f"{here} does not answer as a Redis ({reply}): correct the address; {_hint(tls)}"
        )
    if reply.startswith("EXECABORT") and (cause := reply.partition("because of: ")[2]):
        reply = cause
    if reply.startswith(("MOVED ", "ASK ")):
        kind: Callable[[str], StoreError] = StoreUnavailable if running else StoreRefused
        return kind(f"{here} {CLUSTER_NODE} ({reply})")
    for one in REPLIES:
        if one.sign.search(reply):
            later = "cannot serve now: it " if one.error is StoreUnavailable else ""
            return one.error(f"{here} {later}{one.says} ({reply})")
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | CLUSTER_ERRORS):
        reason = reply.rstrip(".") or type(error).__name__
        return StoreUnavailable(
            f"{here} cannot be reached ({reason}): {_cure(reply, running, tls)}"
        )
    if reply.startswith("EXECABORT"):
        return StoreUnavailable(f"{here} cannot serve now: it dropped a transaction ({reply})")
    return StoreRefused(f"{here} refused a call: {reply}")


def hangs_up(error: Fault) -> bool:
    """Return true where the server closed the connection without a reply that redis-py read."""
    return isinstance(error, redis.ConnectionError) and _CUT.search(str(error)) is not None


def reply_of(error: Fault) -> str:
    """Return a reply as the server wrote it: redis-py takes the first word off, or adds some."""
    text = _ANNOTATION.sub("", str(error))
    code = getattr(error, "status_code", None)
    return f"{code} {text}" if code and not text.startswith(code) else text


def _cure(reply: str, running: bool, tls: bool) -> str:
    for one in FAILURES:
        if one.sign.search(reply):
            if one.name == "closed":
                return f"{one.says}{_RAN if running else f' at once: {_hint(tls)}'}"
            if one.name == "silence" and tls and not running:
                return f"{one.says}; {_hint(tls)}"
            return one.says
    return "start it, or correct the address"


def _hint(tls: bool) -> str:
    return _PLAIN if tls else _NO_TLS


def _no_primary(reasons: str, here: str) -> StoreError:
    """Return our error where no sentinel named a primary, by the reasons of those that failed."""
    if "AuthenticationError" in reasons:
        return StoreRefused(
            f"{here}: a sentinel refused us: correct EMOTRACK_REDIS_SENTINEL_USERNAME and "
            "EMOTRACK_REDIS_SENTINEL_PASSWORD (user and password in the address are the server's)"
        )
    if reasons:
        cut = _CUT.search(reasons)
        tls = "; if they want TLS, use rediss+sentinel://" if cut else ""
        return StoreUnavailable(
            f"{here} cannot be found: sentinels are away and none names its primary ({reasons}); "
            f"start them, or correct their addresses{tls}"
        )
    return StoreUnavailable(
        f"{here} cannot be found: the sentinels know no primary of that name that is up. Wait for "
        "the failover, or correct SERVICE in the address (`redis-cli -p 26379 SENTINEL MASTERS`)"
    )
