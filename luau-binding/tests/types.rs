//! The type modules are the documentation: they must say what there is.

use crate::support::run;

/// The names a module has, one a line, sorted.
fn names(expression: &str) -> String {
    let source = format!(
        "local module = {expression}
        local names = {{}}
        for name in module do table.insert(names, name) end
        table.sort(names)
        print(table.concat(names, '\\n'))"
    );
    let output = run(&source, &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_exported_name_is_documented_and_every_documented_name_exported() {
    for (name, source) in hukilau::TYPE_MODULES {
        let real = names(&format!("require('{name}')"));
        let documented = names(&format!("(function() {source} end)()"));
        assert_eq!(documented, real, "{name}");
    }
}

#[test]
fn every_option_is_documented() {
    let (_, source) = hukilau::TYPE_MODULES[0];
    for (given, declared) in [
        (
            "net.serve({ zzzzzzzz = newproxy() })",
            "export type ServeOptions = {",
        ),
        (
            "net.serve({ websocket = { zzzzzzzz = newproxy() } })",
            "export type WebSocketOptions = {",
        ),
        (
            "net.serve({ limits = { zzzzzzzz = newproxy() } })",
            "export type LimitOptions = {",
        ),
        (
            "net.request({ zzzzzzzz = newproxy() })",
            "export type RequestOptions = {",
        ),
        (
            "net.websocket('ws://127.0.0.1:1', { zzzzzzzz = newproxy() })",
            "export type WebSocketRequest = {",
        ),
    ] {
        let output = run(&format!("local net = require('@huki/net')\n{given}"), &[]);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(stderr.contains("unknown option 'zzzzzzzz'"), "{stderr}");
        let (_, behind) = source.split_once(declared).expect("the type is there");
        let (body, _) = behind.split_once("\n}").expect("the type ends");
        let documented = body
            .lines()
            .filter_map(|line| line.strip_prefix('\t')?.split_once(':'))
            .filter(|(name, _)| name.chars().all(char::is_alphanumeric))
            .map(|(name, _)| name);
        let mut count = 0;
        for name in documented {
            let given = given.replace("zzzzzzzz", name);
            let output = run(&format!("local net = require('@huki/net')\n{given}"), &[]);
            let stderr = String::from_utf8(output.stderr).expect("UTF-8");
            assert!(!stderr.contains("unknown option"), "{name}: {stderr}");
            count += 1;
        }
        assert!(count >= 6, "{declared}: {count} options found");
    }
}
