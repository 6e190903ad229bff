//! Has `huki` start a quarter sooner: the C++ library is linked in, where there is one to link in.
//!
//! Luau is C++, and its build asks for `-lstdc++`, which linkers take from the shared library. To find, map and relocate
//! that one takes the dynamic loader longer than anything else in a start. Linkers search the folders of `-L` before those
//! of the compiler, so a folder with the static library alone in it decides which one it is. The unwinder that C++ and Rust
//! share goes the same way: C++ that is linked in should not bring its own.
//!
//! Invariants
//! - Where the compiler has no static library (Fedora packs it apart), cannot be asked, or builds for another system,
//!   nothing changes: the shared ones are linked.
//! - Only the program is linked so. Whoever embeds the library decides for themselves.
//!
//! Not here: the build of Luau, which is `mlua-sys`'s.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a linker takes for `libgcc_s`: the unwinder, and the arithmetic that the shared library has as well. The files lie
/// beside each other in the compiler's own folder.
const UNWINDER: &[u8] = b"GROUP ( -lgcc_eh -lgcc )\n";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CXX");
    let Some(folder) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return;
    };
    if is_usual_linux() && provide(&folder).is_some() {
        println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
    }
}

/// Whether it builds for the system on which it runs, and that has GNU's C++ library.
fn is_usual_linux() -> bool {
    let (target, host) = (env::var_os("TARGET"), env::var_os("HOST"));
    let is_gnu = |name: OsString| name.to_string_lossy().ends_with("-linux-gnu");
    target == host && target.is_some_and(is_gnu)
}

/// Puts into `folder` what stands in for the shared libraries; `None` if something is missing.
fn provide(folder: &Path) -> Option<()> {
    let cpp = compilers_own("libstdc++.a")?;
    compilers_own("libgcc_eh.a")?;
    // A copy: a link would lead nowhere once the compiler is updated.
    place(&folder.join("libstdc++.a"), &std::fs::read(cpp).ok()?)?;
    place(&folder.join("libgcc_s.a"), UNWINDER)
}

/// Writes a file anew. Never through a link, whatever lies there.
fn place(path: &Path, content: &[u8]) -> Option<()> {
    let _ = std::fs::remove_file(path);
    File::create_new(path).ok()?.write_all(content).ok()
}

/// The compiler's own file of this name.
fn compilers_own(library: &str) -> Option<PathBuf> {
    let compiler = env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let question = format!("-print-file-name={library}");
    let answer = Command::new(compiler).arg(question).output().ok()?;
    let path = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim_end());
    // One that does not have it answers with the bare name.
    (path.is_absolute() && path.is_file()).then_some(path)
}
