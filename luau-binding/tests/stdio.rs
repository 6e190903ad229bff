//! Standard input by lines: who waits for one, who gets it, and what the end is.

use crate::support::huki;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Output};

/// Runs `source` as a file, so that standard input is the script's.
fn start(name: &str, source: &str) -> Child {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stdio-{name}.luau"));
    let prelude = "local stdio, task = require('@huki/stdio'), require('@huki/task') ";
    std::fs::write(&path, format!("{prelude}{source}")).expect("target is writable");
    huki(&["run", path.to_str().expect("UTF-8")])
}

/// What comes of `source` when it is given `input` and its end.
fn run(name: &str, source: &str, input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = start(name, source);
    let mut stdin = child.stdin.take().expect("piped");
    // A script that ends early does not read all of it.
    let _ = stdin.write_all(input);
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("huki ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn lines_come_without_their_ends_and_the_end_of_input_is_nil_each_time() {
    let source = "local line = stdio.readLine()
        while line do
            stdio.write(`[{line}]`)
            line = stdio.readLine()
        end
        assert(stdio.readLine() == nil and stdio.readLine() == nil)";
    for (input, expected) in [
        (&b""[..], ""),
        (b"a\nb\r\n\nlast", "[a][b][][last]"),
        (b"\n", "[]"),
        (b"a b\t\r\n", "[a b\t]"),
    ] {
        let output = run("lines", source, input);
        assert_eq!(output, (Some(0), expected.to_owned(), String::new()));
    }
}

/// A conversation with a script, line by line.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Talk {
    fn start(name: &str, source: &str) -> Self {
        let mut child = start(name, source);
        let stdin = child.stdin.take();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, out }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("input has not ended");
        writeln!(stdin, "{line}").expect("huki reads it");
    }

    fn end_input(&mut self) {
        self.stdin = None;
    }

    #[track_caller]
    fn hear(&mut self, expected: &str) {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("UTF-8");
        assert_eq!(line.trim_end(), expected);
    }

    fn finish(mut self) {
        self.end_input();
        let status = self.child.wait().expect("huki ends");
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn only_the_coroutine_that_reads_waits() {
    let mut talk = Talk::start(
        "waits",
        "local ticks = 0
        task.every(1000, function(_, ticker)
            ticks += 1
            if ticks == 3 then print('ticked') ticker:cancel() end
        end)
        print(`heard {stdio.readLine()}`)",
    );
    // The line is sent only after the timers have run.
    talk.hear("ticked");
    talk.say("it");
    talk.hear("heard it");
    talk.finish();
}

#[test]
fn lines_go_to_those_who_wait_in_their_order_and_none_is_lost_by_a_cancelled_one() {
    let mut talk = Talk::start(
        "order",
        "local readers = {}
        for n = 1, 4 do
            readers[n] = task.spawn(function() print(`{n} {stdio.readLine()}`) end)
        end
        task.cancel(readers[1])
        task.cancel(readers[3])
        print('ready')
        repeat task.wait(0.001) until coroutine.status(readers[4]) == 'dead'
        local late = task.spawn(stdio.readLine)
        print('again')
        task.wait(0.01)
        task.cancel(late)
        print('cancelled')
        task.wait(0.05)
        print(`5 {stdio.readLine()}`)
        print(`6 {stdio.readLine()}`)
        print(stdio.readLine())",
    );
    talk.hear("ready");
    talk.say("a");
    talk.hear("2 a");
    talk.say("b");
    talk.hear("4 b");
    talk.hear("again");
    talk.hear("cancelled");
    talk.say("c");
    talk.hear("5 c");
    talk.say("d");
    talk.hear("6 d");
    talk.end_input();
    talk.hear("nil");
    talk.finish();
}

#[test]
fn a_script_may_end_while_somebody_waits_for_a_line() {
    let mut child = start(
        "exit",
        "task.delay(0.01, function() require('@huki/process').exit(3) end) stdio.readLine()",
    );
    // Standard input stays open all the time.
    let stdin = child.stdin.take().expect("piped");
    assert_eq!(child.wait().expect("huki ends").code(), Some(3));
    drop(stdin);
}

#[test]
fn where_nothing_can_wait_the_error_says_so_and_costs_no_line() {
    let source = "local ok, message = pcall(table.sort, { 1, 2 }, function()
            stdio.readLine()
            return true
        end)
        assert(not ok)
        print(string.match(message, 'cannot wait here'), stdio.readLine())";
    let output = run("sort", source, b"line\n");
    let expected = "cannot wait here\tline\n".to_owned();
    assert_eq!(output, (Some(0), expected, String::new()));
}
