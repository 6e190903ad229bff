#!/usr/bin/env python3
"""Nanoseconds of CPU that a GET costs, by dialect: nanoseconds.py HUKI

The scripts of count.py, each in a process of its own, all at once and in turn: 16 connections that send 16 requests in one piece,
so that what the kernel does for one request is little. Zune's server takes one request of a connection at a time, so all are sent
single ones too. The median over the rounds, and the median of the differences from the native module within each round.
"""

import statistics
import sys

from beside_lune import GET, Server

GROUPS = [(16, ["native", "lune", "lute"]), (1, ["native", "lune", "lute", "zune"])]
ROUNDS, CONNECTIONS, REQUESTS = 41, 16, 640


def cost(server, connections, answer_len, piece):
    """CPU nanoseconds of one answer."""
    before = server.cpu()
    for _ in range(REQUESTS // piece):
        for connection in connections:
            connection.sendall(GET * piece)
        for connection in connections:
            left = answer_len * piece
            while left > 0:
                left -= len(connection.recv(left))
    return (server.cpu() - before) * 1000 / (REQUESTS * len(connections))


def answer_len(connection):
    """Bytes of one answer."""
    connection.sendall(GET)
    answer = b""
    while not answer.endswith(b"Hello, World!"):
        answer += connection.recv(4096)
    return len(answer)


def compare(huki, piece, dialects):
    """Prints the cost of each of `dialects`, the first of which is the base."""
    servers = [Server(huki, f"{dialect}.luau") for dialect in dialects]
    all_connections = [[server.connect() for _ in range(CONNECTIONS)] for server in servers]
    lens = [answer_len(connections[0]) for connections in all_connections]
    rounds = []
    for number in range(ROUNDS):
        # Each is first as often as any other.
        order = [(at + number) % len(servers) for at in range(len(servers))]
        costs = {at: cost(servers[at], all_connections[at], lens[at], piece) for at in order}
        rounds.append([costs[at] for at in range(len(servers))])
    for at, dialect in enumerate(dialects):
        median = statistics.median(costs[at] for costs in rounds)
        over = statistics.median(costs[at] - costs[0] for costs in rounds)
        print(f"{dialect:8}{piece:4} in a piece{median:10,.0f}{over:+10,.0f}", flush=True)
    for server in servers:
        server.end()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for piece, dialects in GROUPS:
        compare(sys.argv[1], piece, dialects)


main()
