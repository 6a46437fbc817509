"""Floods a wxgate on this machine as strangers would, within bounds, and says what memory it takes.

    python3 tests/bench/flood.py http://127.0.0.1:8080 PID [streams] [slow] [idle]

streams   3 HTTP/2 connections with 128 streams, up to 1 MiB on each, for routes that read before they know the caller
slow      1,200 connections from one address, each with a part of a form
idle      200 HTTP/2 connections that ask once and then answer pings for two minutes

PID is that of the gateway. Only addresses of this machine are flooded. Needs Python 3 and nothing else.
"""

import select
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PATHS = (
    ("/oauth/token", "application/x-www-form-urlencoded"),
    ("/cgi-bin/stable_token", "application/json"),
    ("/callbacks/wx00000000000000a1?signature=0&timestamp=1&nonce=1", "text/xml"),
)


def resident(pid):
    """MiB of memory that a process holds, and the most that it has held."""
    with open(f"/proc/{pid}/status") as status:
        found = dict(line.split(":", 1) for line in status)
    return tuple(int(found[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field without indexing and without Huffman codes (RFC 7541 §6.2.2)."""
    return b"".join([b"\x00", bytes((len(name),)), name.encode(), bytes((len(value),)), value.encode()])


class Http2:
    """A connection that keeps to the windows of its peer."""

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        self.received, self.initial, self.window, self.windows = b"", 65_535, 65_535, {}
        self.ended = False

    def open(self, stream, method, path, kind=None):
        fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)]
        fields += [("content-type", kind)] if kind else []
        block = b"".join(literal(*field) for field in fields)
        self.windows[stream] = self.initial
        self.send(frame(HEADERS, END_HEADERS | (0 if kind else END_STREAM), stream, block))

    def push(self, stream, length):
        """Sends as much of a body as the windows have room for."""
        length = min(length, self.window, self.windows.get(stream, 0), 16_384)
        if length > 0:
            self.send(frame(DATA, 0, stream, b"x" * length))
            self.window -= length
            self.windows[stream] -= length
        return max(length, 0)

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.ended = True

    def listen(self, patience):
        """Reads what is there, and answers what must be answered."""
        while not self.ended and select.select([self.socket], [], [], patience)[0]:
            patience = 0
            try:
                data = self.socket.recv(65_536)
            except OSError:
                data = b""
            self.ended = not data
            self.received += data
            while len(self.received) >= 9:
                length = int.from_bytes(self.received[:3], "big")
                if len(self.received) < 9 + length:
                    break
                kind, flags = self.received[3], self.received[4]
                stream = int.from_bytes(self.received[5:9], "big") & 0x7FFFFFFF
                payload, self.received = self.received[9 : 9 + length], self.received[9 + length :]
                self.take(kind, flags, stream, payload)

    def take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at : at + 6])
                if name == 4:
                    self.windows = {n: w + value - self.initial for n, w in self.windows.items()}
                    self.initial = value
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self.window += more
            elif stream in self.windows:
                self.windows[stream] += more
        elif (kind == HEADERS and flags & END_STREAM) or kind == 3 or (kind == DATA and flags & END_STREAM):
            self.windows.pop(stream, None)


def streams(address, pid):
    """1 MiB on each of 384 streams."""
    connections = [Http2(address) for _ in range(3)]
    sent = {}
    for connection in connections:
        connection.listen(1)
        for number in range(128):
            connection.open(2 * number + 1, "POST", *PATHS[number % 3])
            sent[connection, 2 * number + 1] = 0
    began = time.monotonic()
    most = 0
    while time.monotonic() - began < 5:
        moved = 0
        for (connection, stream), length in sent.items():
            moved += (more := connection.push(stream, (1 << 20) - 1 - length))
            sent[connection, stream] += more
        for connection in connections:
            connection.listen(0)
        most = max(most, resident(pid)[0])
        if not moved:
            time.sleep(0.02)
    print(f"  {sum(sent.values()) >> 20} MiB were taken in 5 s, the gateway holds up to {most} MiB")


def slow(address, pid):
    """A part of a form on each of 1,200 connections."""
    body = "x" * 15_000
    start = f"POST {PATHS[0][0]} HTTP/1.1\r\nHost: x\r\nContent-Type: {PATHS[0][1]}\r\nContent-Length: 16000\r\n\r\n{body}"
    held = []
    for _ in range(1200):
        held.append(socket.create_connection(address, source_address=("127.0.0.9", 0)))
        try:
            held[-1].sendall(start.encode())
        except OSError:
            pass
    time.sleep(3)
    waiting, refused, closed = 0, 0, 0
    for connection in held:
        connection.setblocking(False)
        try:
            answer = connection.recv(4096)
            refused += answer.startswith(b"HTTP/1.1 503")
            closed += not answer
        except BlockingIOError:
            waiting += 1
        except OSError:
            closed += 1
    print(f"  {waiting} wait, {refused} have 503, {closed} are closed; the gateway holds {resident(pid)[0]} MiB")


def idle(address, pid):
    """Connections that do nothing and are alive."""
    connections = [Http2(address) for _ in range(200)]
    for connection in connections:
        connection.listen(1)
        connection.open(1, "GET", "/healthz")
    began = time.monotonic()
    while time.monotonic() - began < 120 and not all(connection.ended for connection in connections):
        for connection in connections:
            connection.listen(0)
        time.sleep(0.1)
    left = sum(not connection.ended for connection in connections)
    print(f"  {left} of 200 are open after {time.monotonic() - began:.0f} s; the gateway holds {resident(pid)[0]} MiB")


def main():
    url, pid, *chosen = sys.argv[1:]
    address = (urlsplit(url).hostname, urlsplit(url).port)
    assert socket.gethostbyname(address[0]).startswith("127."), "this machine only"
    for attack in (streams, slow, idle):
        if not chosen or attack.__name__ in chosen:
            print(f"{attack.__name__}: {resident(pid)[0]} MiB before", flush=True)
            attack(address, pid)
            time.sleep(1)


main()
