#!/usr/bin/env python3
"""Instructions that a GET costs in user space, by dialect: count.py HUKI

HUKI is a release build of `huki`. Each script runs under callgrind with 500 and with 2,500 requests on one connection; the
difference is what 2,000 requests cost, without start and end.
"""

import pathlib
import re
import signal
import socket
import subprocess
import sys

FEW, MANY = 500, 2500
REQUEST = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n"
END = b"Hello, World!"


def instructions(huki, script, requests):
    """All instructions of a run that answers so many requests."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", huki, "run", script]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().split()[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(requests):
            connection.sendall(REQUEST)
            answer = b""
            while not answer.endswith(END):
                piece = connection.recv(4096)
                if not piece:
                    sys.exit(f"{script}: the server has closed the connection behind {answer!r}")
                answer += piece
    server.send_signal(signal.SIGTERM)
    report = server.communicate(timeout=60)[1]
    return int(re.search(r"Collected : (\d+)", report).group(1))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(__file__).parent
    native = None
    for name in ["native", "lune", "lute", "zune"]:
        script = str(folder / f"{name}.luau")
        cost = (instructions(sys.argv[1], script, MANY) - instructions(sys.argv[1], script, FEW)) / (MANY - FEW)
        native = native or cost
        print(f"{name:8}{cost:10,.0f}{cost - native:+10,.0f}")


main()
