#!/usr/bin/env python3
"""Nanoseconds of CPU that a GET costs, by dialect: nanoseconds.py HUKI [ROUNDS [SCRIPT...]]

The scripts of count.py, each in a process of its own, all at once and in turn: 16 connections that send 16 requests in one piece,
so that what the kernel does for one request is little. Zune's server takes one request of a connection at a time, so all are sent
single ones too. Rounds are short and many, 1,280 requests for each server in an order that is drawn anew each time, and a difference
from the native module is taken within its round: what slows the machine for longer than some tens of milliseconds slows both.

CPU is that of all threads, which the system's scheduler counts in nanoseconds. `+-` is half of the 95 % interval of the median,
by rank, and `quarters` is where the middle half of the rounds lies. `user` is the difference outside the kernel: the system samples that
share 250 times a second only, so it is of the whole run, and its `+-` is twice its standard error. Other SCRIPTs are paths, the first the
base, asked one by one.
"""

import os
import pathlib
import random
import statistics
import sys

from beside_lune import GET, Server

GROUPS = [(16, ["native", "lune", "lute"]), (1, ["native", "lune", "lute", "zune"])]
ROUNDS, CONNECTIONS, REQUESTS = 401, 16, 80


def ask(connections, answer_len, piece):
    """Has each connection ask so often, all at the same time."""
    for _ in range(REQUESTS // piece):
        for connection in connections:
            connection.sendall(GET * piece)
        for connection in connections:
            left = answer_len * piece
            while left > 0:
                left -= len(connection.recv(left))


def cost(server, connections, answer_len, piece):
    """CPU nanoseconds of one answer."""
    before = server.cpu()
    ask(connections, answer_len, piece)
    return (server.cpu() - before) * 1000 / (REQUESTS * len(connections))


def answer_len(connection):
    """Bytes of one answer."""
    connection.sendall(GET)
    answer = b""
    while not answer.endswith(b"Hello, World!"):
        answer += connection.recv(4096)
    return len(answer)


def split(server):
    """Ticks of the clock that found the server outside of the kernel, and inside."""
    stat = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(stat[11]), int(stat[12])


def median(values):
    """Median, half of its 95 % interval, and the quartiles."""
    values = sorted(values)
    reach = 0.98 * len(values) ** 0.5
    low, high = (values[round(len(values) / 2 + side * reach)] for side in (-1, 1))
    quarters = statistics.quantiles(values, n=4)
    return statistics.median(values), (high - low) / 2, quarters[0], quarters[2]


def outside(before, after, nanoseconds):
    """Of so many nanoseconds those outside of the kernel, and the standard error."""
    user, system = (late - early for early, late in zip(before, after))
    share = user / (user + system)
    # The clock ticks a hundred times in a second of these units, and it samples 2.5 times as often.
    error = (share * (1 - share) / (2.5 * (user + system))) ** 0.5
    return share * nanoseconds, error * nanoseconds


def compare(huki, piece, scripts, rounds):
    """Prints the cost of each of `scripts`, the first of which is the base."""
    servers = [Server(huki, script) for script in scripts]
    all_connections = [[server.connect() for _ in range(CONNECTIONS)] for server in servers]
    lens = [answer_len(connections[0]) for connections in all_connections]
    for at, connections in enumerate(all_connections):
        ask(connections, lens[at], piece)
    before = [split(server) for server in servers]
    costs = []
    for _ in range(rounds):
        order = random.sample(range(len(servers)), len(servers))
        by_server = {at: cost(servers[at], all_connections[at], lens[at], piece) for at in order}
        costs.append([by_server[at] for at in range(len(servers))])
    users = []
    for at, server in enumerate(servers):
        mean = statistics.mean(costs[at] for costs in costs)
        users.append(outside(before[at], split(server), mean))
    for at, script in enumerate(scripts):
        middle, _, _, _ = median([costs[at] for costs in costs])
        line = f"{pathlib.Path(script).stem:12}{piece:3} in a piece {middle:7,.0f}"
        if at > 0:
            over, error, low, high = median([costs[at] - costs[0] for costs in costs])
            line += f" {over:+7,.0f} +-{error:3,.0f}  quarters {low:+7,.0f} {high:+7,.0f}"
            user, doubt = users[at][0] - users[0][0], 2 * (users[at][1] ** 2 + users[0][1] ** 2) ** 0.5
            line += f"  user {user:+7,.0f} +-{doubt:3,.0f}"
        print(line, flush=True)
    for server in servers:
        server.end()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    groups = [(1, [os.path.abspath(path) for path in sys.argv[3:]])] if len(sys.argv) > 3 else GROUPS
    for piece, scripts in groups:
        scripts = [script if script.endswith(".luau") else f"{script}.luau" for script in scripts]
        compare(sys.argv[1], piece, scripts, rounds)


main()
