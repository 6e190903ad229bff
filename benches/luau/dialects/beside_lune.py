#!/usr/bin/env python3
"""The same Lune script under huki and under Lune: beside_lune.py HUKI

Lune is looked for where LUNE points, then at target/peers/bin/lune, then on the PATH. Both serve beside.luau. CPU is that of the
server process, from /proc, per answer: rounds alternate between the two, a round is 64 connections that each ask once, 100 times
over. Medians, and the median of the ratios within each round. Memory is what each of 5,000 idle WebSockets adds to the resident
memory, after one echo on each; a fresh process each time.
"""

import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import sys

ROUNDS, CONNECTIONS, TURNS, IDLE, FRESH = 15, 64, 100, 5000, 3
GET = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PAYLOAD = b"x" * 32
# Text, final, masked with zeros; its echo has no mask.
FRAME = bytes([0x81, 0x80 | len(PAYLOAD), 0, 0, 0, 0]) + PAYLOAD
ECHO = bytes([0x81, len(PAYLOAD)]) + PAYLOAD


class Server:
    """A process that serves a script of this folder, on the port that it is given or prints."""

    def __init__(self, program, script="beside.luau"):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        script = str(pathlib.Path(__file__).parent / script)
        command = [program, "run", script, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        words = self.process.stdout.readline().split()
        if not words:
            sys.exit(f"{program} does not serve")
        if words[0] == "port":
            self.port = int(words[1])

    def end(self):
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def connect(self):
        """A connection."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def upgrade(self):
        """A WebSocket that has been served once."""
        connection = self.connect()
        connection.sendall(UPGRADE)
        head = receive(connection, lambda data: b"\r\n\r\n" in data)
        if not head.startswith(b"HTTP/1.1 101"):
            sys.exit(f"no WebSocket: {head!r}")
        ask(connection, FRAME, ECHO)
        return connection

    def cpu(self):
        """Microseconds of all its threads."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def resident(self):
        """Bytes of memory."""
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


def receive(connection, is_whole):
    """Bytes up to where they are whole."""
    data = b""
    while not is_whole(data):
        piece = connection.recv(4096)
        if not piece:
            sys.exit(f"the connection is closed behind {data!r}")
        data += piece
    return data


def ask(connection, question, end):
    """Sends and waits for an answer with this end."""
    connection.sendall(question)
    receive(connection, lambda data: data.endswith(end))


def cost(server, connections, question, end):
    """CPU microseconds of one answer."""
    before = server.cpu()
    for _ in range(TURNS):
        for connection in connections:
            connection.sendall(question)
        for connection in connections:
            receive(connection, lambda data: data.endswith(end))
    return (server.cpu() - before) / (TURNS * len(connections))


def compare(what, programs, opens, question, end):
    """Prints CPU per answer of both."""
    servers = [Server(program) for program in programs]
    all_connections = [[opens(server) for _ in range(CONNECTIONS)] for server in servers]
    rounds = []
    for number in range(ROUNDS + 1):
        order = [0, 1] if number % 2 else [1, 0]
        costs = {at: cost(servers[at], all_connections[at], question, end) for at in order}
        rounds.append((costs[0], costs[1]))
    # The first is for warming up.
    rounds = rounds[1:]
    mine, theirs = (statistics.median(costs) for costs in zip(*rounds))
    ratio = statistics.median(theirs / mine for mine, theirs in rounds)
    print(f"| {what} | {mine:.1f} us | {theirs:.1f} us | {ratio:.1f} x |", flush=True)
    for server in servers:
        server.end()


def idle(program):
    """Bytes of one idle WebSocket."""
    server = Server(program)
    # What the first ones cost once is not each one's.
    sockets = [server.upgrade() for _ in range(100)]
    before = server.resident()
    sockets += [server.upgrade() for _ in range(IDLE)]
    bytes_each = (server.resident() - before) / IDLE
    server.end()
    return bytes_each


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    built = "target/peers/bin/lune"
    lune = os.environ.get("LUNE") or (built if os.path.exists(built) else shutil.which("lune"))
    if not lune:
        sys.exit("no Lune: cargo install lune --locked --root target/peers")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    programs = [sys.argv[1], lune]
    print("| | huki | Lune | Lune / huki |\n| --- | ---: | ---: | ---: |")
    compare("CPU of a GET", programs, Server.connect, GET, b"Hello, World!")
    compare("CPU of an echo", programs, Server.upgrade, FRAME, ECHO)
    mine, theirs = (
        statistics.median(idle(program) for _ in range(FRESH)) for program in programs
    )
    print(f"| memory of an idle WebSocket | {mine:,.0f} B | {theirs:,.0f} B | {theirs / mine:.1f} x |")


if __name__ == "__main__":
    main()
