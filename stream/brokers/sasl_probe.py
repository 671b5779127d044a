"""Log in to a Kafka broker only to read the reason of its refusal.

A broker that refuses a user answers and closes the connection at once. kafka-python 3.0 drops an
answer that it reads together with the connection's end, and reports "socket disconnected" alone.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

from kafka.errors import KafkaError, NoError, SaslAuthenticationFailedError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from stream.security import KafkaSecurity, host_and_port


def sasl_fault(address: str, security: KafkaSecurity, timeout_s: float) -> KafkaError | None:
    """Return why the broker at `host:port` refuses our user; None if it does not, or gives none.

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


def _refused(connection: socket.socket, host: str, arguments: dict[str, Any]) -> KafkaError | None:
    name = arguments["sasl_mechanism"]
    protocol = KafkaProtocol(client_id="emotrack")
    answer = _send(connection, protocol, SaslHandshakeRequest(version=1, mechanism=name))
    if (kind := for_code(answer.error_code)) is not NoError:
        return kind()
    mechanism = get_sasl_mechanism(name)(host=host, **arguments)
    while not mechanism.is_done():
        request = SaslAuthenticateRequest(version=1, auth_bytes=mechanism.auth_bytes())
        answer = _send(connection, protocol, request)
        if for_code(answer.error_code) is not NoError:
            return SaslAuthenticationFailedError(answer.error_message)
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
