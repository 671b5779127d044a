"""Reach a Kafka broker with kafka-python, or explain in one sentence why that fails."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from logging.handlers import BufferingHandler
from typing import Any, Final

import kafka
import kafka.errors
from kafka.errors import KafkaError
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from stream.errors import AccessRefused, BrokerUnreachable, EmotrackError, TopicMissing
from stream.security import PLAINTEXT, KafkaSecurity, host_and_port, kafka_tls_fault

# The oldest protocol with all we use. Apache Kafka >= 2.3 speaks it, and so does librdkafka's mock
# cluster (the demo's broker), whose answer to a version probe this client does not understand.
API_VERSION: Final = (2, 3)
_TRY_S: Final = 2.0  # limit of one attempt; its fault is examined then
_LINES: Final = 1_000  # most lines of kafka-python's log that are collected


def client_arguments(bootstrap: str, security: KafkaSecurity = PLAINTEXT) -> dict[str, Any]:
    """Return any kafka-python client's arguments. Raises `ConfigError` for an unusable PEM file."""
    return {
        "bootstrap_servers": broker_addresses(bootstrap),
        "api_version": API_VERSION,
        **security.kafka_python(),
    }


def require_topic(
    bootstrap: str, topic: str, timeout_s: float = 10.0, security: KafkaSecurity = PLAINTEXT
) -> None:
    """Return when the broker answers and has `topic`.

    Raises `BrokerUnreachable`, `AccessRefused` or `TopicMissing`.
    """
    with connected_admin(bootstrap, timeout_s, security) as admin:
        topics = admin.list_topics()
    if topic not in topics:
        raise TopicMissing(
            f"topic {topic} does not exist on {bootstrap}{or_hidden(security)}: create the topics "
            f"with `emotrack topics create --bootstrap {bootstrap}`"
        )


def or_hidden(security: KafkaSecurity) -> str:
    """Return a clause for a missing topic: brokers hide topics from users without rights on it."""
    return f", or user {security.username} may not see it" if security.sasl else ""


@contextmanager
def connected_admin(
    bootstrap: str,
    timeout_s: float = 10.0,
    security: KafkaSecurity = PLAINTEXT,
    *,
    current: bool = False,
) -> Iterator[Any]:
    """Yield an admin client; raise its errors as `BrokerUnreachable` or `AccessRefused`.

    With `current` it speaks all that the broker does (no mock cluster), not only `API_VERSION`.
    """
    require_broker(bootstrap, timeout_s, security)
    admin = _admin(bootstrap, timeout_s, security, current=current)
    try:
        _require_reachable(admin, bootstrap)
        yield admin
    except kafka.errors.KafkaError as error:
        raise refusal(bootstrap, security, [error], answered=True) from error
    finally:
        with suppress(Exception):  # what it was closed for is what a user must read
            admin.close()


def unreachable(admin: Any) -> dict[str, str]:
    """Return the addresses that the brokers advertise and that we cannot reach, with the reason."""
    faults: dict[str, str] = {}
    for broker in admin._manager.cluster.brokers():
        try:
            socket.create_connection((broker.host, broker.port), _TRY_S).close()
        except (OSError, ValueError) as error:  # a name that is none is a ValueError
            faults[f"{broker.host}:{broker.port}"] = getattr(error, "strerror", None) or str(error)
    return faults


def misled(bootstrap: str, faults: Mapping[str, str]) -> str:
    """Return a sentence on brokers that send their clients to addresses we cannot reach."""
    where = "; ".join(f"{address} ({reason})" for address, reason in faults.items())
    return (
        f"the broker at {bootstrap} answers and sends its clients on to {where}, which cannot be "
        "reached from here: set advertised.listeners on that broker to an address that its clients "
        "reach, or make this one resolve and connect"
    )


def _require_reachable(admin: Any, bootstrap: str) -> None:
    """Raise `BrokerUnreachable` where no broker is reached at the address it advertises."""
    faults = unreachable(admin)
    if faults and len(faults) == len({(b.host, b.port) for b in admin._manager.cluster.brokers()}):
        raise BrokerUnreachable(misled(bootstrap, faults))


def _admin(bootstrap: str, timeout_s: float, security: KafkaSecurity, *, current: bool) -> Any:
    """Connect, retrying for `timeout_s`; raise at once what a retry cannot heal."""
    until = time.monotonic() + timeout_s
    arguments = client_arguments(bootstrap, security)
    if current:
        del arguments["api_version"]
    while True:
        try_s = max(1.0, min(_TRY_S, until - time.monotonic()))
        try:
            with logged_warnings() as lines:
                return kafka.KafkaAdminClient(
                    bootstrap_timeout_ms=int(try_s * 1000),
                    request_timeout_ms=max(int(timeout_s * 1000), 1000),
                    **arguments,
                )
        except kafka.errors.KafkaError as error:
            logged = [a for line in lines for a in line.args or () if isinstance(a, BaseException)]
            refused = refusal(bootstrap, security, [error, *logged])
            if isinstance(refused, AccessRefused) or time.monotonic() + 1.0 > until:
                raise refused from error


def require_broker(
    bootstrap: str, timeout_s: float = 10.0, security: KafkaSecurity = PLAINTEXT
) -> None:
    """Return when one of the addresses takes a connection and shows a trusted certificate.

    Raises `BrokerUnreachable`, or `AccessRefused` where only TLS fails.
    """
    context = security.context() if security.tls else None
    faults, refused = [], None
    for address in broker_addresses(bootstrap):
        try:
            host, port = host_and_port(address)
            with socket.create_connection((host, port), timeout_s) as plain:
                if context is not None:
                    context.wrap_socket(plain, server_hostname=host).close()
                return
        except ssl.SSLError as error:
            refused = refused or refusal(address, security, [error])
        except (OSError, ValueError) as error:
            faults.append(f"{address}: {error}")
    if refused is not None:
        raise refused
    raise BrokerUnreachable(
        f"no Kafka broker answers ({'; '.join(faults) or 'no address given'}): start one, or give "
        "its host:port as --bootstrap or EMOTRACK_BOOTSTRAP"
    )


def refusal(
    address: str,
    security: KafkaSecurity,
    faults: list[BaseException],
    *,
    answered: bool = False,
) -> EmotrackError:
    """Return an error for the first of these faults that a user can cure; else for the first.

    `answered`: the broker has answered before.
    """
    for fault in faults:
        if sentence := explain(fault, address, security):
            return AccessRefused(sentence)
    if not security.tls and any(speaks_tls(a, _TRY_S) for a in broker_addresses(address)):
        return AccessRefused(
            f"the broker at {address} speaks TLS: set EMOTRACK_KAFKA_SECURITY to ssl or sasl_ssl, "
            "or use its other port"
        )
    if answered:
        return BrokerUnreachable(
            f"Kafka at {address} answered, and then failed ({faults[0]}): look into the broker's "
            "log, and try again"
        )
    for single in broker_addresses(address):
        if security.sasl and (answer := sasl_fault(single, security, _TRY_S)) is not None:
            if sentence := explain(answer, single, security):
                return AccessRefused(sentence)
        elif not security.sasl and wants_a_user(single, security, _TRY_S):
            return AccessRefused(
                f"the broker at {single} wants a user: set EMOTRACK_KAFKA_SECURITY to "
                f"{'sasl_ssl' if security.tls else 'sasl_plaintext'}, EMOTRACK_KAFKA_USERNAME and "
                "EMOTRACK_KAFKA_PASSWORD[_FILE], or use its other port"
            )
    protocol = security.protocol
    return BrokerUnreachable(
        f"something listens at {address} but does not answer as a Kafka broker: {faults[0]}; with "
        f"EMOTRACK_KAFKA_SECURITY={protocol} it must be a {protocol.upper()} listener"
    )


def sasl_fault(address: str, security: KafkaSecurity, timeout_s: float) -> KafkaError | None:
    """Return why the broker at `host:port` refuses our user; None if it does not, or gives none.

    A broker that refuses a user answers and closes the connection at once. kafka-python 3.0 drops
    an answer that it reads together with the connection's end, and reports "socket disconnected"
    alone: so log in only to read the reason.

    Raises `ConfigError` for an unusable PEM file.
    """
    arguments = security.kafka_python()
    with ExitStack() as opened:
        try:
            host, port = host_and_port(address)
            plain = socket.create_connection((host, port), timeout_s)
            connection = opened.enter_context(plain)
            if security.tls:
                secured = arguments["ssl_context"].wrap_socket(plain, server_hostname=host)
                connection = opened.enter_context(secured)
            return _refused(connection, host, arguments)
        except (OSError, ValueError, KafkaError):  # no connection, or no Kafka broker
            return None


def wants_a_user(address: str, security: KafkaSecurity, timeout_s: float) -> bool:
    """Return whether a broker there tells its version and hangs up at all else: SASL is missing.

    Raises `ConfigError` for an unusable PEM file.
    """
    context = security.context() if security.tls else None
    protocol, told = KafkaProtocol(client_id="emotrack"), False
    with ExitStack() as opened:
        try:
            host, port = host_and_port(address)
            connection = opened.enter_context(socket.create_connection((host, port), timeout_s))
            if context is not None:
                connection = opened.enter_context(
                    context.wrap_socket(connection, server_hostname=host)
                )
            _send(connection, protocol, ApiVersionsRequest(version=0))
            told = True
            _send(connection, protocol, MetadataRequest(version=1, topics=[]))
        except (OSError, ValueError, KafkaError):
            return told
    return False


def _refused(connection: socket.socket, host: str, arguments: dict[str, Any]) -> KafkaError | None:
    name = arguments["sasl_mechanism"]
    protocol = KafkaProtocol(client_id="emotrack")
    answer = _send(connection, protocol, SaslHandshakeRequest(version=1, mechanism=name))
    if (kind := kafka.errors.for_code(answer.error_code)) is not kafka.errors.NoError:
        return kind()
    mechanism = get_sasl_mechanism(name)(host=host, **arguments)
    while not mechanism.is_done():
        request = SaslAuthenticateRequest(version=1, auth_bytes=mechanism.auth_bytes())
        answer = _send(connection, protocol, request)
        if kafka.errors.for_code(answer.error_code) is not kafka.errors.NoError:
            return kafka.errors.SaslAuthenticationFailedError(answer.error_message)
        mechanism.receive(answer.auth_bytes)
    return None


def _send(connection: socket.socket, protocol: KafkaProtocol, request: Any) -> Any:
    """Return the answer to a request. Raises OSError where the broker hangs up without one."""
    protocol.send_request(request)
    connection.sendall(protocol.send_bytes())
    while portion := connection.recv(4096):
        if answers := protocol.receive_bytes(portion):
            return answers[0][1]
    raise ConnectionError("it hung up")


def explain(fault: BaseException, address: str, security: KafkaSecurity) -> str | None:
    """Return why the broker refuses us, and the cure; None for a fault no user can cure."""
    if isinstance(fault, kafka.errors.SaslAuthenticationFailedError):
        return (
            f"the broker at {address} does not take user {security.username} with that "
            f"password ({security.mechanism}): correct EMOTRACK_KAFKA_USERNAME and "
            "EMOTRACK_KAFKA_PASSWORD[_FILE], or add the user on the broker"
        )
    if isinstance(fault, kafka.errors.UnsupportedSaslMechanismError):
        return (
            f"the broker at {address} does not offer {security.mechanism}: set "
            "EMOTRACK_KAFKA_SASL_MECHANISM to one that it does"
        )
    if isinstance(fault, kafka.errors.IllegalSaslStateError):
        return (
            f"the broker at {address} takes no user there: set EMOTRACK_KAFKA_SECURITY to "
            f"{'ssl' if security.tls else 'plaintext'}, or use its other port"
        )
    if sentence := not_allowed(fault, address, security):
        return sentence
    meaning = kafka_tls_fault(str(fault))
    return f"TLS with the broker at {address}: {meaning}" if meaning else None


def not_allowed(fault: BaseException, address: str, security: KafkaSecurity) -> str | None:
    """Return a sentence on missing ACLs; None for another fault."""
    # kafka-python wraps some such answers in a plain error.
    if "AuthorizationFailedError" not in f"{type(fault).__name__} {fault}":
        return None
    return (
        f"the broker at {address} does not allow {security.username or 'this client'} that "
        f"({type(fault).__name__}): add the ACLs of docs/security.md"
    )


def speaks_tls(address: str, timeout_s: float) -> bool:
    """Return whether a TLS handshake succeeds there; nothing is sent, so no trust is needed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(host_and_port(address), timeout_s) as plain:
            context.wrap_socket(plain).close()
    except (OSError, ValueError):
        return False
    return True


def broker_addresses(bootstrap: str) -> list[str]:
    """Split `host:port,host:port`; 9092 where no port is given."""
    named = [address.strip() for address in bootstrap.split(",") if address.strip()]
    return [address if ":" in address else f"{address}:9092" for address in named]


@contextmanager
def logged_warnings() -> Iterator[list[logging.LogRecord]]:
    """Collect kafka-python's warnings: it logs the reason of a failed connection, and no more."""
    handler, logger = BufferingHandler(capacity=_LINES), logging.getLogger("kafka.net")
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)
