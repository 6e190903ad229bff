"""Prints one line a case of an Autobahn report: its number, its verdict, and that of its close."""
from __future__ import print_function
import json
import sys

with open(sys.argv[1]) as report:
    (cases,) = json.load(report).values()
for case in sorted(cases, key=lambda case: [int(part) for part in case.split(".")]):
    print(case, cases[case]["behavior"], cases[case]["behaviorClose"])
