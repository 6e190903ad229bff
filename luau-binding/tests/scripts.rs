//! Scripts that check themselves: each file of `tests/luau` must end with status 0 and without a
//! word on standard error.

use crate::support::huki;

#[track_caller]
fn check(name: &str) {
    let path = format!("{}/tests/luau/{name}.luau", env!("CARGO_MANIFEST_DIR"));
    let output = huki(&["run", &path]).wait_with_output().expect("huki ends");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(output.stdout, b"ok\n", "the script came to its end");
}

macro_rules! scripts {
    ($( $name:ident, )*) => {
        $( #[test] fn $name() { check(stringify!($name)); } )*

        #[test]
        fn every_script_is_run() {
            let folder = format!("{}/tests/luau", env!("CARGO_MANIFEST_DIR"));
            for entry in std::fs::read_dir(folder).expect("the folder is there") {
                let path = entry.expect("readable").path();
                if path.extension().is_some_and(|extension| extension == "luau") {
                    let name = path.file_stem().and_then(|name| name.to_str());
                    assert!([ $( stringify!($name), )* ].iter().any(|known| Some(*known) == name), "{path:?}");
                }
            }
        }
    };
}

scripts! {
    every,
    everything,
    helpers,
    json,
    pulled_drain,
    raw,
    requires,
    sandbox,
    serve_options,
    socket_end,
    tasks,
    udp,
}
