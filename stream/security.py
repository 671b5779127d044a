"""TLS and SASL of our Kafka clients, for both client libraries, and TLS faults in a sentence.

Imports neither library: `librdkafka` returns options of confluent-kafka, `kafka_python` arguments
of kafka-python.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from stream.errors import ConfigError

Protocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

# librdkafka's names of our settings: passed as an option, only the worker would use them.
SETTING_OF_OPTION: Final = {
    "security.protocol": "kafka_security",
    "sasl.mechanism": "kafka_sasl_mechanism",
    "sasl.mechanisms": "kafka_sasl_mechanism",
    "sasl.username": "kafka_username",
    "sasl.password": "kafka_password",
    "ssl.ca.location": "kafka_ca_file",
    "ssl.certificate.location": "kafka_cert_file",
    "ssl.key.location": "kafka_key_file",
    "ssl.key.password": "kafka_key_password",
}


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """The identity shown to a broker, and the authorities trusted. The default is plain TCP.

    Without `ca_file` the system's authorities are trusted; the broker's name is always checked.
    """

    protocol: Protocol = "plaintext"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)

    @property
    def tls(self) -> bool:
        """True when the connection is encrypted."""
        return self.protocol in ("ssl", "sasl_ssl")

    @property
    def sasl(self) -> bool:
        """True when a user logs in."""
        return self.protocol.startswith("sasl_")

    def librdkafka(self) -> dict[str, str]:
        """Return the options of confluent-kafka's clients; none for plain TCP."""
        options: dict[str, str | Path | None] = {}
        if self.protocol != "plaintext":
            options["security.protocol"] = self.protocol
        if self.tls:
            options |= {
                "ssl.ca.location": self.ca_file or "probe",
                "ssl.certificate.location": self.cert_file,
                "ssl.key.location": self.key_file,
                "ssl.key.password": self.key_password,
            }
        if self.sasl:
            options |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        return {name: str(value) for name, value in options.items() if value is not None}

    def kafka_python(self) -> dict[str, Any]:
        """Return arguments of kafka-python's clients. Raises `ConfigError` as `context` does."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol.upper()}
        if self.tls:
            arguments["ssl_context"] = self.context()
        if self.sasl:
            arguments |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return arguments

    def context(self) -> ssl.SSLContext:
        """Return the client's TLS context. Raises `ConfigError` for a file that cannot be used."""
        setting, path = "kafka_ca_file", self.ca_file
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                setting, path = "kafka_cert_file or kafka_key_file", self.cert_file
                # A key that is encrypted must not make OpenSSL ask on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, self.key_password or "")
        except OSError as error:  # `ssl.SSLError` is one
            reason = "no PEM file of ours" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"{setting}: {path} cannot be used ({reason}): name a readable PEM file"
            ) from None
        return context


PLAINTEXT: Final = KafkaSecurity()


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of `host:port` or `[v6]:port`. Raises `ValueError` for a bad port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


_TLS_FAULTS: Final = (
    ("certificate has expired", "its certificate has expired: renew it on the server"),
    ("certificate is not yet valid", "its certificate is not valid yet: compare the clocks"),
    ("hostname mismatch", "its certificate is for another name: use a name that it holds"),
    ("ip address mismatch", "its certificate is for another name: use a name that it holds"),
    ("certificate verify failed", "its certificate is of an authority we do not trust: {ca}"),
    ("certificate required", "it wants a certificate of ours: {cert}"),
    ("bad certificate", "it wants another certificate of ours, or any: {cert}"),
    ("unknown ca", "it does not trust our certificate: {cert}"),
    ("wrong version number", "it does not speak TLS: {plain}"),
    ("unexpected eof", "it broke off the TLS handshake; a port without TLS does: {plain}"),
    ("eof occurred", "it broke off the TLS handshake; a port without TLS does: {plain}"),
    ("handshake", "the TLS handshake failed: {plain}"),
)


def tls_fault(message: str, *, ca: str, cert: str, plain: str) -> str | None:
    """Return the meaning of a TLS error message of OpenSSL; None for any other text.

    `ca`, `cert` and `plain` are the cures: which setting names an authority, our certificate, or
    turns TLS off.
    """
    text = re.sub(r"[_\s]+", " ", message.lower())
    if not any(word in text for word in ("ssl", "tls", "certificate")):
        return None
    for sign, meaning in _TLS_FAULTS:
        if sign in text:
            return meaning.format(ca=ca, cert=cert, plain=plain)
    return None


def kafka_tls_fault(message: str) -> str | None:
    """Return `tls_fault` with Kafka's settings as cures."""
    return tls_fault(
        message,
        ca="name it in EMOTRACK_KAFKA_CA_FILE",
        cert="set EMOTRACK_KAFKA_CERT_FILE and EMOTRACK_KAFKA_KEY_FILE",
        plain="check the port, and EMOTRACK_KAFKA_SECURITY",
    )
