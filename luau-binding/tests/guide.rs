//! The guide, `README.md` of this package: each block of Luau runs as it stands, with the check behind it.
//!
//! A check is a comment of the Markdown. It is appended to the block, so it sees the block's locals; a line
//! `-- prints TEXT` in it says what the whole prints, in which `*` stands for anything.

use crate::support::huki_in;
use std::path::{Path, PathBuf};

const GUIDE: &str = include_str!("../README.md");

/// The blocks of the guide in language `language`, each with what follows up to the next block.
fn blocks<'g>(language: &str) -> Vec<(&'g str, &'g str)> {
    let mut found = Vec::new();
    let mut parts = GUIDE.split("\n```");
    parts.next();
    while let (Some(block), Some(behind)) = (parts.next(), parts.next()) {
        let (info, code) = block.split_once('\n').expect("a block has lines");
        if info == language {
            found.push((code, behind));
        }
    }
    assert!(!found.is_empty(), "{language}");
    found
}

/// A folder with a certificate for localhost, which the guide's servers use.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide");
    std::fs::create_dir_all(&folder).expect("target is writable");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("writable");
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join("key.pem"), key).expect("writable");
    folder
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || pattern.ends_with('*')
}

#[test]
fn every_block_of_luau_in_the_guide_does_what_it_says() {
    let folder = folder();
    for (number, (code, behind)) in blocks("luau").into_iter().enumerate() {
        let check = behind
            .trim_start()
            .strip_prefix("<!-- check\n")
            .and_then(|rest| rest.split_once("-->"))
            .unwrap_or_else(|| panic!("a check follows each block:\n{code}"))
            .0;
        // Any free port, so that tests disturb nobody.
        let code = code.replace("8080", "0").replace("8443", "0");
        let end = "\nrequire('@huki/process').exit(0)\n";
        let name = format!("block{number}.luau");
        std::fs::write(folder.join(&name), format!("{code}\n{check}{end}")).expect("writable");
        let child = huki_in(&folder, &["run", &name]);
        let output = child.wait_with_output().expect("huki ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert_eq!(
            (output.status.code(), stderr.as_str()),
            (Some(0), ""),
            "{code}"
        );
        let mut expected = check
            .lines()
            .filter_map(|line| line.strip_prefix("-- prints "));
        let is_said = expected
            .next()
            .is_none_or(|line| matches(line, stdout.trim_end()));
        assert!(is_said, "{code}\n{stdout}");
    }
}

#[test]
fn every_command_in_the_guide_is_one_that_there_is() {
    let output = crate::support::huki(&["--help"]).wait_with_output();
    let help = String::from_utf8(output.expect("huki ends").stdout).expect("UTF-8");
    let mut count = 0;
    for (block, _) in blocks("sh") {
        for line in block.lines().filter(|line| line.starts_with("huki ")) {
            let line = line.split(" #").next().unwrap_or_default();
            for word in line.split_whitespace().skip(1) {
                let is_option = word.starts_with("--");
                let is_command = !word.contains(['.', '<', '-']) && word.parse::<u16>().is_err();
                let known = match (is_option, is_command) {
                    (true, _) => help.contains(&format!(" {word} ")) || word == "--help",
                    (_, true) => help.contains(&format!("huki {word} ")),
                    _ => true,
                };
                assert!(known, "{line}: {word}");
            }
            count += 1;
        }
    }
    assert!(count >= 8, "{count} commands");
}

#[test]
fn every_link_in_the_guide_leads_somewhere() {
    let headings: Vec<String> = GUIDE
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    for link in GUIDE.split("](").skip(1) {
        let target = link.split(')').next().unwrap_or_default();
        let exists = match target.strip_prefix('#') {
            Some(heading) => headings.iter().any(|known| known == heading),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(),
        };
        assert!(exists, "{target}");
    }
}
