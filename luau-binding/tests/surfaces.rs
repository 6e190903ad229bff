//! The dialects: each file of `tests/luau/<system>/` runs as it is, and how they are found.
//!
//! A test program ends with status 0 and nothing on standard error, having printed `ok` last. A first
//! line `-- huki: OPTIONS` gives options of `huki run`; one that begins with `-- status N` says that
//! it ends with N, whatever it writes to standard error.

use crate::support::{PATIENCE, huki, run};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::mpsc;

/// Runs the programs in `tests/luau/<system>` and tells of all that fail, by name.
#[track_caller]
fn run_folder(system: &str) {
    let folder = format!("{}/tests/luau/{system}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "luau")
    });
    paths.sort();
    assert!(!paths.is_empty(), "no program in {folder}");
    let failed: Vec<String> = paths.iter().filter_map(|path| program(path)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What a program comes to. One that takes too long is ended: in Lune a script that fails leaves its
/// servers running.
fn within_patience(child: Child) -> Option<Output> {
    let id = child.id().to_string();
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(3 * PATIENCE);
    if output.is_err() {
        let killed = Command::new("kill").args(["-KILL", &id]).status();
        assert!(killed.expect("kill is there").success());
    }
    // The receiver may have given up, and then nobody is told.
    let _ = waiter.join();
    Some(output.ok()?.expect("huki ends"))
}

/// Runs one program; what is wrong, if anything is.
fn program(path: &Path) -> Option<String> {
    let source = std::fs::read_to_string(path).expect("UTF-8");
    let first = source.lines().next().unwrap_or_default();
    let options = first.strip_prefix("-- huki: ").unwrap_or_default();
    let status = first.strip_prefix("-- status ");
    let status = status.map(|rest| rest.split(' ').next().unwrap_or_default().parse::<i32>());
    let path = path.to_str().expect("UTF-8");
    let mut args = vec!["run"];
    args.extend(options.split_whitespace());
    args.push(path);
    let Some(output) = within_patience(huki(&args)) else {
        return Some(format!("--- {path}: does not come to its end"));
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_right = match status {
        Some(status) => output.status.code() == status.ok(),
        None => output.status.success() && stderr.is_empty(),
    };
    let came_to_its_end = stdout.lines().next_back() == Some("ok");
    (!is_right || !came_to_its_end).then(|| {
        let status = output.status;
        format!("--- {path}: {status}\n{stdout}{stderr}")
    })
}

#[test]
fn programs_for_lune_run_unmodified() {
    run_folder("lune");
}

#[test]
fn programs_for_zune_run_unmodified() {
    run_folder("zune");
}

#[test]
fn programs_for_lute_run_unmodified() {
    run_folder("lute");
}

#[test]
fn programs_for_the_winhttp_api_run_unmodified() {
    run_folder("winhttp");
}

#[test]
fn one_process_may_mix_the_dialects_and_they_understand_one_another() {
    run_folder("pairs");
}

#[track_caller]
fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout)
        .expect("UTF-8")
        .trim_end()
}

#[test]
fn an_unknown_module_of_a_dialect_is_refused_at_the_line_that_requires_it() {
    let output = run("\nlocal x = require('@lune/nett')", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let said = "stdin:2: error requiring module \"@lune/nett\": there are @lune/fs, @lune/net";
    assert!(stderr.contains(said), "{stderr}");
    let output = run("print(pcall(require, '@huki/surface'))", &[]);
    assert!(stdout(&output).starts_with("false\t"), "{output:?}");
    let output = run("print(pcall(require, '@huki/surface/lune/server'))", &[]);
    assert!(stdout(&output).starts_with("false\t"), "{output:?}");
}

#[test]
fn a_module_of_a_dialect_is_one_module_however_often_it_is_required() {
    let source =
        "print(require('@lune/net') == require('@Lune/Net'), table.isfrozen(require('@lune/net')))";
    assert_eq!(stdout(&run(source, &[])), "true\ttrue");
}

#[test]
fn the_version_follows_the_first_dialect_that_is_required_even_before() {
    let source = "print(_VERSION) require('@lune/task')";
    assert!(stdout(&run(source, &[])).starts_with("Lune 0.10.5+"));
    assert!(stdout(&run("print(_VERSION)", &[])).starts_with("Luau"));
    // A path that nobody can see before the script runs counts from there on.
    let source = "local path = '@lune/' .. 'task' require(path) print(getfenv()._VERSION)";
    assert!(stdout(&run(source, &[])).starts_with("Lune "));
}

#[test]
fn the_command_line_decides_on_the_dialect() {
    for (name, version) in [
        ("lune", "Lune 0.10.5+"),
        ("zune", "zune 0.5.7+0."),
        ("zcore", "Zune 0.4.2+0."),
        ("lute", "Luau"),
        ("winhttp", "Luau"),
    ] {
        let mut child = huki(&["run", "--dialect", name, "-"]);
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, b"print(_VERSION)").expect("huki reads it");
        drop(stdin);
        let output = child.wait_with_output().expect("huki ends");
        assert!(stdout(&output).starts_with(version), "{name}: {output:?}");
    }
    let output = huki(&["run", "--dialect", "luna", "x.luau"])
        .wait_with_output()
        .expect("huki ends");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("--dialect must be one of lune, lute"),
        "{stderr}"
    );
}

#[test]
fn errors_of_a_dialect_stand_at_the_script_s_line_and_nowhere_else() {
    let source = "local net = require('@lune/net')\nlocal ok, message = pcall(net.serve, 'x')\nprint(message)\nnet.jsonDecode('')";
    let output = run(source, &[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.starts_with("stdin:2: net.serve: "), "{stdout}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("stdin:4: "), "{stderr}");
    assert!(
        !stderr.contains("surface") && !stdout.contains("surface"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn in_lune_an_error_anywhere_is_status_1_at_the_end() {
    let lune = "local task = require('@lune/task')";
    let source = format!("{lune} task.spawn(function() error('first') end) print('on')");
    let output = run(&source, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"on\n");
    let source = format!("{lune} task.delay(0.01, function() print('late') end) error('main')");
    let output = run(&source, &[]);
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(1), b"late\n".as_slice())
    );
    let source = "require('@huki/task').spawn(function() error('first') end)";
    assert_eq!(
        run(source, &[]).status.code(),
        Some(0),
        "the rule is Lune's"
    );
}

#[test]
fn a_check_knows_the_modules_of_dialects() {
    let path = format!(
        "{}/tests/luau/lune/s08_helpers.luau",
        env!("CARGO_MANIFEST_DIR")
    );
    let output = huki(&["check", &path])
        .wait_with_output()
        .expect("huki ends");
    assert!(output.status.success(), "{output:?}");
}
