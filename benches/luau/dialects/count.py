#!/usr/bin/env python3
"""Instructions that a GET and an echoed message cost in user space, by dialect: count.py HUKI

HUKI is a release build of `huki`. Each script runs under callgrind with 500 and with 2,500 requests on one connection; the
difference is what 2,000 requests cost, without start and end. The second column is the same with one field more, whose value
is another one each time: then nothing of a request was met before. The third is a text of 32 bytes that a WebSocket sends back,
by the scripts in `echo`.
"""

import pathlib
import re
import signal
import socket
import subprocess
import sys

FEW, MANY = 500, 2500
HEAD = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: x\r\nAccept: */*\r\n"
END = b"Hello, World!"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def same(_):
    """Bytes of a request, and how its answer ends."""
    return HEAD + b"\r\n", END


def other(number):
    """The same, with a field that says something else each time."""
    field = b"X-Request-Id: %016x\r\n" % (number * 0x9E3779B97F4A7C15 % 2**64)
    return HEAD + field + b"\r\n", END


def message(number):
    """Bytes of a message, whose mask is zeros, and of its echo."""
    payload = b"%032x" % number
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload, payload


def ask(connection, question, end):
    """Sends, and receives to the end of the answer."""
    connection.sendall(question)
    answer = b""
    while not answer.endswith(end):
        piece = connection.recv(4096)
        if not piece:
            sys.exit(f"the server has closed the connection behind {answer!r}")
        answer += piece


def instructions(huki, script, requests, question):
    """All instructions of a run that answers so many requests."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", huki, "run", script]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().split()[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        if question is message:
            ask(connection, UPGRADE, b"\r\n\r\n")
        for number in range(requests):
            ask(connection, *question(number))
    server.send_signal(signal.SIGTERM)
    report = server.communicate(timeout=60)[1]
    return int(re.search(r"Collected : (\d+)", report).group(1))


def cost(huki, script, question):
    """Instructions of one request."""
    few, many = (instructions(huki, str(script), requests, question) for requests in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(__file__).parent
    native = None
    print("          the same fields      another field each time   a message echoed")
    for name in ["native", "lune", "lute", "zune"]:
        costs = [cost(sys.argv[1], folder / f"{name}.luau", question) for question in (same, other)]
        costs.append(cost(sys.argv[1], folder / "echo" / f"{name}.luau", message))
        native = native or costs
        columns = (f"{one:10,.0f}{one - base:+10,.0f}" for one, base in zip(costs, native))
        print(f"{name:8}{''.join(columns)}", flush=True)


main()
