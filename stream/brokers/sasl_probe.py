"""Ask a Kafka broker whether it takes our user, and read its answer to the end.

A broker that refuses somebody answers and hangs up at once. kafka-python 3.0 throws away an answer
that it reads together with the end of the connection; all it then knows is "socket disconnected".
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any, Final

from kafka.errors import KafkaError, NoError, SaslAuthenticationFailedError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from stream.security import KafkaSecurity, host_and_port

_PORTION: Final = 4096


def sasl_fault(address: str, security: KafkaSecurity, timeout_s: float) -> KafkaError | None:
    """Why the broker at `host:port` does not take our user; None where it does, or does not say.

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
        except (OSError, ValueError, KafkaError):  # nobody there, or no Kafka broker
            return None


def _refused(connection: socket.socket, host: str, arguments: dict[str, Any]) -> KafkaError | None:
    name = arguments["sasl_mechanism"]
    talk = KafkaProtocol(client_id="emotrack")
    answer = _asked(connection, talk, SaslHandshakeRequest(version=1, mechanism=name))
    if (kind := for_code(answer.error_code)) is not NoError:
        return kind()
    mechanism = get_sasl_mechanism(name)(host=host, **arguments)
    while not mechanism.is_done():
        request = SaslAuthenticateRequest(version=1, auth_bytes=mechanism.auth_bytes())
        answer = _asked(connection, talk, request)
        if for_code(answer.error_code) is not NoError:
            return SaslAuthenticationFailedError(answer.error_message)
        mechanism.receive(answer.auth_bytes)
    return None


def _asked(connection: socket.socket, talk: KafkaProtocol, request: Any) -> Any:
    """The answer to a request. Raises OSError where the broker hangs up without one."""
    talk.send_request(request)
    connection.sendall(talk.send_bytes())
    while True:
        portion = connection.recv(_PORTION)
        if not portion:
            raise ConnectionError("it hung up")
        if answers := talk.receive_bytes(portion):
            return answers[0][1]
