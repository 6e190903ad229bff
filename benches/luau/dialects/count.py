#!/usr/bin/env python3
"""Instructions that a GET costs in user space, by dialect: count.py HUKI

HUKI is a release build of `huki`. Each script runs under callgrind with 500 and with 2,500 requests on one connection; the
difference is what 2,000 requests cost, without start and end. The second column is the same with one field more, whose value
is another one each time: then nothing of a request was met before.
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


def head(number, changes):
    """The bytes of a request."""
    field = b"X-Request-Id: %016x\r\n" % (number * 0x9E3779B97F4A7C15 % 2**64) if changes else b""
    return HEAD + field + b"\r\n"


def instructions(huki, script, requests, changes):
    """All instructions of a run that answers so many requests."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", huki, "run", script]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().split()[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number in range(requests):
            connection.sendall(head(number, changes))
            answer = b""
            while not answer.endswith(END):
                piece = connection.recv(4096)
                if not piece:
                    sys.exit(f"{script}: the server has closed the connection behind {answer!r}")
                answer += piece
    server.send_signal(signal.SIGTERM)
    report = server.communicate(timeout=60)[1]
    return int(re.search(r"Collected : (\d+)", report).group(1))


def cost(huki, script, changes):
    """Instructions of one request."""
    few, many = (instructions(huki, script, requests, changes) for requests in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(__file__).parent
    native = None
    print("          the same fields      another field each time")
    for name in ["native", "lune", "lute", "zune"]:
        script = str(folder / f"{name}.luau")
        costs = [cost(sys.argv[1], script, changes) for changes in (False, True)]
        native = native or costs
        same, other = (f"{one:10,.0f}{one - base:+10,.0f}" for one, base in zip(costs, native))
        print(f"{name:8}{same}{other}")


main()
