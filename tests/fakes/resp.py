"""A server on loopback that speaks RESP 2 and answers as a test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

Answer = Callable[[list[bytes]], bytes]
"""Return the reply to a command and its arguments, as bytes of the protocol; none: hang up."""

FACTS: Final = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "role": "master",
    "run_id": "r",
    "master_replid": "m",
    "evicted_keys": "0",
}


def info(**changed: str) -> bytes:
    """Return the reply to INFO of a fit server, with some facts changed."""
    text = "".join(f"{name}:{value}\r\n" for name, value in (FACTS | changed).items())
    return f"${len(text)}\r\n{text}\r\n".encode()


class RespServer:
    """Answers each command of each connection by `answer`; sends `greeting` and hangs up if set."""

    def __init__(self, answer: Answer, greeting: bytes = b"") -> None:
        self.answer, self.greeting = answer, greeting
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RespServer:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._open.append(client)
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, client.makefile("rb") as lines:
            if self.greeting:
                client.sendall(self.greeting)
                return
            while line := lines.readline():
                count = int(line[1:])
                words = []
                for _ in range(count):
                    length = int(lines.readline()[1:])
                    words.append(lines.read(length + 2)[:length])
                reply = self.answer(words)
                if not reply:
                    return
                client.sendall(reply)
