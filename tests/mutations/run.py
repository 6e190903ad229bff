#!/usr/bin/env python3
"""Breaks one rule of the parser or the framer at a time and sees whether the tests notice.

    tests/mutations/run.py            all faults; prints a table, fails if one goes unnoticed
    tests/mutations/run.py 3 7        some of them
    tests/mutations/run.py --list     what they are

The faults go into a copy of the tree, as git's index has it, in target/mutations: the work tree is
never touched. Only the transcripts are played.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COPY = os.path.join(ROOT, "target", "mutations")
HTTP1, WS = "core/src/http1/", "core/src/ws/"

# What is broken, where, the text that is there once, and what it becomes.
FAULTS = [
    ("Content-Length beside Transfer-Encoding is let through", HTTP1 + "framing.rs",
     "self.break_rule(Violation::FramingConflict);", ""),
    ("a last coding that is not chunked is let through", HTTP1 + "framing.rs",
     "if self.has(TRANSFER_ENCODING) && !self.has(CHUNKED_LAST) {", "if false {"),
    ("a second Content-Length is let through if it is equal", HTTP1 + "framing.rs",
     "        if self.has(CONTENT_LENGTH) {\n            self.break_rule(Violation::ContentLengthRepeated);",
     "        if self.has(CONTENT_LENGTH) && decimal(value) != Some(self.content_length) {\n"
     "            self.break_rule(Violation::ContentLengthRepeated);"),
    ("lengths may have a plus sign", HTTP1 + "token.rs",
     "    let mut value: u64 = 0;\n    while let",
     "    let mut value: u64 = 0;\n    if let [b'+', rest @ ..] = digits {\n        digits = rest;\n    }\n"
     "    while let"),
    ("a bare LF ends a field line", HTTP1 + "scan.rs",
     "            (_, b'\\n') => Err(Violation::LineEnding),",
     "            (State::Value, b'\\n') => Ok(State::LineStart),\n"
     "            (_, b'\\n') => Err(Violation::LineEnding),"),
    ("a folded line is taken for a field", HTTP1 + "scan.rs",
     "            (State::LineStart, b' ' | b'\\t') => Err(Violation::LineFolding),",
     "            (State::LineStart, b' ' | b'\\t') => Ok(State::Value),"),
    ("HTTP/1.1 without Host is let through", HTTP1 + "framing.rs",
     "if is_http11 && !self.has(HOST) {", "if false {"),
    ("a chunk-size may have any number of digits", HTTP1 + "chunked.rs",
     "if digits >= SIZE_DIGITS_MAX {", "if digits == u8::MAX {"),
    ("frames of a client need no mask", WS + "frame.rs",
     "if masked != (role == Role::Server) {", "if masked && role == Role::Client {"),
    ("lengths may be longer than they need", WS + "frame.rs",
     "if len < 126 {", "if len < 1 {"),
    ("control frames may be fragmented", WS + "frame.rs",
     "if opcode.is_control() && !fin {", "if false {"),
    ("text may end inside a character", WS + "utf8.rs",
     "if core::mem::take(self).pending_len > 0 {", "if core::mem::take(self).pending_len > 3 {"),
    ("what a message inflates to is not counted", WS + "message.rs",
     "let bytes_max = usize::try_from(rules.message_bytes_max).unwrap_or(usize::MAX);",
     "let bytes_max = usize::MAX;"),
]


def copy_tree():
    """The files of the index. Those that are as they were keep their times: cargo looks at them."""
    subprocess.run(["git", "checkout-index", "-a", "-q", "-f", "--prefix", COPY + "/"], cwd=ROOT, check=True)


def test():
    """Plays the transcripts in the copy. What that prints, and whether all went as recorded."""
    environment = dict(os.environ, CARGO_TARGET_DIR=os.path.join(ROOT, "target"), CARGO_TERM_COLOR="never")
    command = ["cargo", "test", "-q", "-p", "hukilau-core", "--test", "transcripts", "--no-fail-fast"]
    ran = subprocess.run(command, cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, errors="replace")
    return ran.stdout, ran.returncode == 0


def row(number, what, output):
    """Prints which transcripts have noticed, if any."""
    noticed = re.findall(r"^\S*testdata/(\S+\.md): (.*) \(([^()]*)\)$", output, re.M)
    if noticed:
        file, title, section = noticed[0]
        print(f"| {number} | {what} | {len(noticed)} | `{file}`: {title} ({section}) |", flush=True)
    return bool(noticed)


def main():
    arguments = sys.argv[1:]
    if arguments == ["--list"]:
        for number, (what, file, _, _) in enumerate(FAULTS, 1):
            print(f"{number:2} {file}: {what}")
        return 0
    wanted = [int(number) for number in arguments] or range(1, len(FAULTS) + 1)
    copy_tree()
    output, passed = test()
    if not passed:
        print(output, file=sys.stderr)
        print("the tests fail without any fault", file=sys.stderr)
        return 1
    print("| | fault | transcripts that notice | the first |\n| --- | --- | --- | --- |", flush=True)
    unnoticed = 0
    for number in wanted:
        what, file, before, after = FAULTS[number - 1]
        path = os.path.join(COPY, file)
        with open(path, encoding="utf-8") as source:
            good = source.read()
        if good.count(before) != 1:
            print(f"{file} has changed: fault {number} fits {good.count(before)} times", file=sys.stderr)
            return 1
        try:
            with open(path, "w", encoding="utf-8") as source:
                source.write(good.replace(before, after))
            output, passed = test()
        finally:
            with open(path, "w", encoding="utf-8") as source:
                source.write(good)
        if "could not compile" in output:
            print(output, file=sys.stderr)
            return 1
        if passed or not row(number, what, output):
            print(f"| {number} | {what} | **none** | |", flush=True)
            unnoticed += 1
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
