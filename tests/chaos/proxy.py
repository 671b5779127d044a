"""A TCP proxy on loopback that can be slow, silent, broken, or deaf to what the server answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Final, Literal

from stream.local.servers import free_ports

Mode = Literal["pass", "blackhole", "drop_reply"]
PIECE: Final = 65_536
TICK_S: Final = 0.01


class Proxy:
    """Forwards a loopback port to another; how is decided while it runs.

    `mode`: "pass" everything; "blackhole": what comes from either side is kept until the mode
    changes; "drop_reply": the server hears all, and what it answers is thrown away and the
    connection reset, so that a client cannot know whether its request took effect. `delay_s` is
    added to each piece in each direction.
    """

    def __init__(self, target: int | None = None) -> None:
        (self.port,) = free_ports(1)
        self.target = target  # may be told later: a server may need our port before it has its own
        self.mode: Mode = "pass"
        self.delay_s = 0.0
        self.dropped = 0  # replies thrown away
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._end = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener.settimeout(0.2)
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Cut every connection, as a failing network does."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _cut(one)

    def close(self) -> None:
        """End; every connection is cut."""
        self._end.set()
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while not self._end.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            assert self.target is not None, "where to?"
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                _cut(client)
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.append((client, server))
            for source, sink, replies in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._forward, args=(source, sink, replies), daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                time.sleep(self.delay_s)
                while self.mode == "blackhole" and not self._end.is_set():
                    time.sleep(TICK_S)
                if replies and self.mode == "drop_reply":
                    self.dropped += 1
                    break
                sink.sendall(piece)
        _cut(source)
        _cut(sink)


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
