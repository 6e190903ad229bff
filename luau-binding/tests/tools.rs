//! The tools of the command: check, setup, repl, watch, and what they say.

use crate::support::{PATIENCE, huki, huki_in};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc;

/// An empty folder of the test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tools-{name}"));
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
    std::fs::create_dir_all(&path).expect("target is writable");
    path
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("inside the folder")).expect("writable");
    std::fs::write(path, text).expect("target is writable");
}

fn run_in(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = huki_in(folder, args).wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn check_follows_requires_and_runs_nothing() {
    let folder = folder("check");
    write(
        &folder,
        "main.luau",
        "local a = require('./lib/a')\nprint('ran')\nrequire('@huki/net')",
    );
    write(
        &folder,
        "lib/a.luau",
        "error('ran') return require('@lib/b')",
    );
    write(&folder, "lib/b.luau", "return require('./a')");
    write(&folder, ".luaurc", r#"{ "aliases": { "lib": "./lib" } }"#);
    let checked = run_in(&folder, &["check", "main.luau"]);
    assert_eq!(
        checked,
        (Some(0), "3 files checked\n".into(), String::new())
    );

    write(&folder, "lib/b.luau", "\nlocal x = = 1");
    write(
        &folder,
        "lib/a.luau",
        "require('@lib/b')\nrequire('./nothing')\nrequire('@huki/nett') return 1",
    );
    let (status, stdout, stderr) = run_in(&folder, &["check", "main.luau"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    let lines: Vec<_> = stderr.lines().collect();
    let [broken, missing, unknown] = lines.as_slice() else {
        panic!("{stderr}");
    };
    assert_eq!(
        *broken,
        "lib/b.luau:2: Expected identifier when parsing expression, got '='"
    );
    assert!(
        missing.starts_with("lib/a.luau:2: error requiring module \"./nothing\""),
        "{missing}"
    );
    assert!(
        unknown.starts_with("lib/a.luau:3: error requiring module \"@huki/nett\""),
        "{unknown}"
    );

    let (status, _, stderr) = run_in(&folder, &["check", "nothing.luau"]);
    assert_eq!(status, Some(1));
    assert!(stderr.starts_with("cannot read nothing.luau: "), "{stderr}");
}

#[test]
fn a_script_may_begin_with_the_mark_of_utf8_and_a_line_for_the_system() {
    let folder = folder("begins");
    write(&folder, "mark.luau", b"\xEF\xBB\xBFreturn 'mark'");
    write(
        &folder,
        "main.luau",
        b"\xEF\xBB\xBF#!/usr/bin/env -S huki run [[\nprint(require('./mark'))\nerror('third')",
    );
    let told = "main.luau:3: third\n";
    let ran = run_in(&folder, &["run", "main.luau"]);
    assert_eq!(ran, (Some(1), "mark\n".to_owned(), told.to_owned()));
    let checked = run_in(&folder, &["check", "main.luau"]);
    assert_eq!(
        checked,
        (Some(0), "2 files checked\n".to_owned(), String::new())
    );
    let (status, _, told) = run_in(&folder, &["run", "main"]);
    let hint = "cannot read main: No such file or directory; there is main.luau\n";
    assert_eq!((status, told.as_str()), (Some(1), hint));
}

#[test]
fn check_reads_standard_input_too() {
    let mut child = huki(&["check", "-"]);
    let mut input = child.stdin.take().expect("it is piped");
    input
        .write_all(b"print('ran')\nlocal = 1")
        .expect("huki reads it");
    drop(input);
    let output = child.wait_with_output().expect("huki ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.starts_with("stdin:2: "), "{told}");
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
}

#[test]
fn a_source_with_a_nul_byte_is_refused_by_run_check_and_require() {
    let folder = folder("nul");
    write(
        &folder,
        "nul.luau",
        b"print('before')\nprint('\0')\nerror('behind')",
    );
    write(&folder, "main.luau", "require('./nul')");
    let message = "nul.luau:2: a NUL byte (byte 23 of the file), which no script has; write \\0 inside a string\n";
    for args in [
        ["run", "nul.luau"],
        ["check", "nul.luau"],
        ["check", "main.luau"],
    ] {
        assert_eq!(
            run_in(&folder, &args),
            (Some(1), String::new(), message.into()),
            "{args:?}"
        );
    }
    let (status, stdout, stderr) = run_in(&folder, &["run", "main.luau"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with(message.trim_end()), "{stderr}");
}

#[test]
fn what_a_module_raises_while_it_loads_comes_with_the_calls_that_led_to_it() {
    let folder = folder("traceback");
    write(
        &folder,
        "main.luau",
        "\nrequire('./outer')\nprint('not reached')",
    );
    write(
        &folder,
        "outer.luau",
        "local inner = require('./inner')\nreturn inner",
    );
    let inner = "local function deep()\n  error('at load')\nend\ndeep()\nreturn 1";
    write(&folder, "inner.luau", inner);
    let (status, _, stderr) = run_in(&folder, &["run", "main.luau"]);
    assert_eq!(status, Some(1));
    let mut lines = stderr.lines();
    assert_eq!(lines.next(), Some("inner.luau:2: at load"), "{stderr}");
    for place in [
        "inner.luau:2 in deep",
        "inner.luau:4",
        "outer.luau:1",
        "main.luau:2",
    ] {
        assert!(
            lines.any(|line| line.trim_start() == place),
            "{place} in {stderr}"
        );
    }
}

#[test]
fn setup_is_idempotent_and_what_it_writes_is_found() {
    let folder = folder("setup");
    write(
        &folder,
        ".luaurc",
        "{\n    // ours\n    \"lint\": { \"*\": true },\n}\n",
    );
    let (status, first, stderr) = run_in(&folder, &["setup"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(first.contains("types/huki/net.luau written"), "{first}");
    let luaurc = || std::fs::read_to_string(folder.join(".luaurc")).expect("it is there");
    let after = luaurc();
    assert!(
        after.contains("// ours") && after.contains("\"huki\": \"./types/huki\""),
        "{after}"
    );
    let (_, again, _) = run_in(&folder, &["setup", "."]);
    assert!(!again.contains("written"), "{again}");
    assert_eq!(luaurc(), after);
    for (alias, target) in [
        ("lune", "lune"),
        ("std", "std"),
        ("zcore", "zune"),
        ("zune", "zune"),
    ] {
        let line = format!("\"{alias}\": \"./types/{target}\"");
        assert!(after.contains(&line), "{line} in {after}");
    }
    let written =
        |name: &str| std::fs::read_to_string(folder.join("types").join(name)).expect(name);
    for (name, source) in hukilau::TYPE_MODULES {
        assert_eq!(written(&format!("{}.luau", &name[1..])), *source, "{name}");
    }
    for (name, source) in hukilau::DEFINITION_FILES {
        assert_eq!(written(name), *source, "{name}");
    }
    // The alias is for editors: at run time the real modules come first.
    write(
        &folder,
        "main.luau",
        "print(type(require('@huki/net').serve), #require('@huki/process').args)",
    );
    assert_eq!(run_in(&folder, &["run", "main.luau"]).1, "function\t0\n");
}

/// Every module that the editor is told of is one that can be required, and the editor's way to it,
/// alias and folder, leads to its types.
#[test]
fn setup_check_and_run_know_the_same_modules() {
    let folder = folder("setup-all");
    let modules = || {
        hukilau::TYPE_MODULES
            .iter()
            .chain(hukilau::DIALECT_TYPE_MODULES)
    };
    let source: String = modules()
        .map(|(name, _)| format!("print(require('{name}') ~= nil)\n"))
        .collect();
    write(&folder, "main.luau", &source);
    let checked = (Some(0), "1 file checked\n".to_owned(), String::new());
    assert_eq!(run_in(&folder, &["check", "main.luau"]), checked);
    assert_eq!(run_in(&folder, &["setup"]).0, Some(0));
    assert_eq!(run_in(&folder, &["check", "main.luau"]), checked);
    let (status, stdout, stderr) = run_in(&folder, &["run", "main.luau"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "true\n".repeat(modules().count()));
    let luaurc = std::fs::read_to_string(folder.join(".luaurc")).expect("it is there");
    for (name, source) in modules() {
        let (alias, rest) = name[1..].split_once('/').expect("an alias and a name");
        let (_, behind) = luaurc
            .split_once(&format!("\"{alias}\": \"./"))
            .expect("the alias is there");
        let (target, _) = behind.split_once('"').expect("it ends");
        let found: Vec<_> = [".luau", "/init.luau"]
            .iter()
            .filter_map(|end| {
                std::fs::read_to_string(folder.join(format!("{target}/{rest}{end}"))).ok()
            })
            .collect();
        assert_eq!(found, [*source], "{name} in {target}");
    }
    // What is written for editors compiles.
    for (name, _) in modules() {
        let name = name[1..].replacen("zcore", "zune", 1);
        let path = [".luau", "/init.luau"]
            .map(|end| format!("types/{name}{end}"))
            .into_iter()
            .find(|path| folder.join(path).exists());
        let path = path.expect("written");
        let (status, _, stderr) = run_in(&folder, &["check", &path]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{path}");
    }
}

#[test]
fn a_module_that_a_dialect_lacks_is_refused_with_those_it_has_by_run_and_check() {
    let folder = folder("lacking");
    for is_set_up in [false, true] {
        if is_set_up {
            assert_eq!(run_in(&folder, &["setup"]).0, Some(0));
        }
        for (name, told) in [
            ("@lune/nett", "there are @lune/fs, @lune/net, "),
            ("@lute/fs", "there are @lute/net, "),
            ("@std/path", "there are @std/json, @std/net, "),
            ("@zcore/nothing", "there are @zcore/fs, "),
            (
                "@huki/nett",
                "there is no such module (did you mean '@huki/net'?)",
            ),
        ] {
            write(&folder, "main.luau", format!("\nrequire('{name}')"));
            for command in ["run", "check"] {
                let (status, _, stderr) = run_in(&folder, &[command, "main.luau"]);
                assert_eq!(status, Some(1), "{command} {name}");
                let expected = format!("main.luau:2: error requiring module \"{name}\": {told}");
                assert!(stderr.starts_with(&expected), "{command}: {stderr}");
            }
        }
    }
}

#[test]
fn setup_keeps_other_aliases_of_a_dialect_and_files_that_are_not_its_own() {
    let folder = folder("setup-kept");
    let before = "{\n    // Lune's own types\n    \"aliases\": { \"Lune\": \"~/.lune/.typedefs/0.10.0/\" }\n}\n";
    write(&folder, ".luaurc", before);
    let (status, stdout, stderr) = run_in(&folder, &["setup"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("the alias \"lune\" is left as it is, \"~/.lune/.typedefs/0.10.0/\""),
        "{stdout}"
    );
    let after = std::fs::read_to_string(folder.join(".luaurc")).expect("it is there");
    assert!(
        after.contains("// Lune's own types")
            && after.contains("\"Lune\": \"~/.lune/.typedefs/0.10.0/\"")
            && after.contains("\"lute\": \"./types/lute\"")
            && !after.contains("types/lune"),
        "{after}"
    );
    write(&folder, "types/std/json.luau", "return 'mine'");
    let (status, stdout, stderr) = run_in(&folder, &["setup"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("types/std/json.luau is a file of yours"),
        "{stderr}"
    );
}

#[test]
fn setup_makes_no_second_configuration_of_a_folder() {
    let folder = folder("setup-config");
    write(
        &folder,
        ".config.luau",
        "return { luau = { aliases = {} } }",
    );
    let (status, stdout, stderr) = run_in(&folder, &["setup"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains(".config.luau is there") && stderr.contains("huki = \"./types/huki\""),
        "{stderr}"
    );
    assert!(!folder.join(".luaurc").exists() && !folder.join("types").exists());
}

#[test]
fn setup_leaves_alone_what_it_cannot_read() {
    let folder = folder("setup-broken");
    write(&folder, ".luaurc", "{\n  \"aliases\": {\n  oops }\n");
    let (status, stdout, stderr) = run_in(&folder, &["setup"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains(".luaurc:3: not JSON: ") && stderr.contains("left as it is"),
        "{stderr}"
    );
    let luaurc = std::fs::read_to_string(folder.join(".luaurc")).expect("it is there");
    assert_eq!(luaurc, "{\n  \"aliases\": {\n  oops }\n");
    assert!(!folder.join("types").exists(), "nothing was written");
}

/// What `huki repl` prints for `input`.
fn repl(input: &str) -> (String, String) {
    let mut child = huki(&["repl"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("huki reads it");
    drop(stdin);
    let output = child.wait_with_output().expect("huki ends");
    assert_eq!(output.status.code(), Some(0));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn the_repl_prints_values_keeps_globals_and_continues_lines() {
    let input = "1 + 1\nx = 'a\\tb'\nx, nil\nfunction f(a)\n  return a * 2\nend\nf(21)\n\
                 { 1, 2, b = { true }, ['c d'] = x }\n{}\nprint('said')\nlocal y = 3\ny\n";
    let (stdout, stderr) = repl(input);
    let expected =
        "2\n\"a\tb\"\tnil\n42\n{ 1, 2, b = { true }, [\"c d\"] = \"a\tb\" }\n{}\nsaid\nnil\n";
    assert_eq!(stdout, expected);
    assert_eq!(stderr, "");
    let (stdout, stderr) = repl("error('no')\nx = = 1\n(\n\nnil + 1\n'goes on'\n");
    assert_eq!(stdout, "\"goes on\"\n");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{stderr}");
    assert_eq!(lines.first(), Some(&"repl:1: no"));
}

#[test]
fn the_repl_outlives_a_line_without_end_and_an_input_that_breaks_off() {
    let input = "while true do end\nerror({ code = 5 })\n1 + 1\nfor n = 1, 2 do";
    let mut child = huki(&["repl", "--budget", "0.2"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("huki reads it");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        lines[0].contains("stopped after running for 0.2 s"),
        "{stderr}"
    );
    assert!(lines.contains(&"{ code = 5 }"), "{stderr}");
    assert!(stderr.contains("got <eof>"), "{stderr}");
    assert!(output.status.success());
}

#[test]
fn the_repl_requires_from_the_working_directory() {
    let folder = folder("repl_requires");
    write(&folder, "part.luau", "return 'a part'");
    let mut child = huki_in(&folder, &["repl"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(b"require('./part')\n")
        .expect("huki reads it");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "\"a part\"\n");
}

#[test]
fn the_repl_serves_between_lines_and_lines_may_wait() {
    let mut child = huki(&["repl"]);
    let mut stdin = child.stdin.take().expect("piped");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("UTF-8");
        line.trim_end().to_owned()
    };
    let mut say = |text: &str| writeln!(stdin, "{text}").expect("huki reads it");
    say("net, task = require('@huki/net'), require('@huki/task')");
    say("server = net.serve(0, function() hits = (hits or 0) + 1 return `hit {hits}` end)");
    say("server.port");
    let port: u16 = line().parse().expect("a port");
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.ends_with("hit 1"), "{answer}");
    say("task.wait(0.01) > 0");
    assert_eq!(line(), "true");
    say("hits");
    assert_eq!(line(), "1");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}

/// The lines of a stream, as they come.
fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    told
}

#[cfg(unix)]
#[test]
fn watch_starts_again_when_a_file_changes_and_after_an_error() {
    let folder = folder("watch");
    write(&folder, "part.luau", "return 'one'");
    let main = "local net = require('@huki/net')
        local server = net.serve(0, function() return 'x' end)
        print(require('./part'))";
    write(&folder, "main.luau", main);
    let mut child = huki_in(&folder, &["run", "--watch", "main.luau"]);
    let out = lines(child.stdout.take().expect("piped"));
    let err = lines(child.stderr.take().expect("piped"));
    let next = |from: &mpsc::Receiver<String>| from.recv_timeout(PATIENCE).expect("a line comes");
    assert_eq!(next(&out), "one");
    write(&folder, "part.luau", "return 'the second'");
    assert!(next(&err).ends_with("part.luau has changed, starting again"));
    assert_eq!(next(&out), "the second");
    // An error ends the run and not the watch.
    write(&folder, "part.luau", "error('broken on purpose')");
    assert!(next(&err).ends_with("part.luau has changed, starting again"));
    let message = next(&err);
    assert!(
        message.ends_with("part.luau:1: broken on purpose"),
        "{message}"
    );
    write(&folder, "part.luau", "return 'mended'");
    assert_eq!(next(&out), "mended");
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-TERM", &id]).status();
    assert!(kill.expect("kill is there").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn unknown_commands_and_options_are_refused_with_the_nearest() {
    for (args, message) in [
        (
            &["rnu", "x"][..],
            "unknown command 'rnu'; did you mean 'run'?",
        ),
        (
            &["server.luau"],
            "a script is run by `huki run server.luau`",
        ),
        (
            &["run", "--wacth", "x"],
            "unknown option '--wacth'; did you mean '--watch'?",
        ),
        (
            &["run", "--bugdet", "1", "x"],
            "unknown option '--bugdet'; did you mean '--budget'?",
        ),
        (&["run", "-x", "y"], "unknown option '-x'"),
        (
            &["run", "--watch", "-"],
            "--watch needs a file: standard input is read once",
        ),
        (
            &["--verison"],
            "unknown option '--verison'; did you mean '--version'?",
        ),
        (&["setup", "a", "b"], "unexpected argument 'b'"),
        (&["check"], "`huki check` needs a file"),
        (&["repl", "file"], "unexpected argument 'file'"),
    ] {
        let output = huki(args).wait_with_output().expect("huki ends");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        let expected = format!("huki: {message}\nTry `huki --help`.\n");
        assert_eq!(stderr, expected, "{args:?}");
    }
}

#[test]
fn help_names_every_command_and_option() {
    let output = huki(&["--help"]).wait_with_output().expect("huki ends");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for name in [
        "run",
        "check",
        "repl",
        "setup",
        "--watch",
        "--budget",
        "--memory",
        "--no-codegen",
        "--help",
        "--version",
    ] {
        assert!(help.contains(name), "{name}");
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
}
