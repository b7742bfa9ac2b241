//! `cargo xtask tidy`: the house rules that no lint knows.
//!
//! Every breach is printed as `file:line: what`, and all are printed, not only the first.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Verdict;
use crate::run::{Interrupted, capture, echo};
use crate::source::{code_only, trait_functions, without_tests};
use crate::workspace::root;

/// A rule that is broken, and where.
#[derive(Debug, Eq, PartialEq)]
struct Breach {
    path: String,
    line: usize,
    what: String,
}

/// The command `tidy`.
pub(crate) fn run() -> Result<Verdict> {
    let files = files()?;
    let mut breaches = Vec::new();
    let mut looked_at = 0;
    for path in files.iter().filter(|path| path.ends_with(".rs")) {
        // A file may be known to git and yet have been removed.
        let Ok(source) = fs::read_to_string(root().join(path)) else {
            continue;
        };
        looked_at += 1;
        check_file(path, &source, &mut breaches);
    }
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap_or_default();
    check_twins(&read(TWINS[0]), &read(TWINS[1]), &mut breaches);
    check_members(&read("Cargo.toml"), &mut breaches);
    for breach in &breaches {
        echo(&format!("{}:{}: {}", breach.path, breach.line, breach.what));
    }
    echo(&format!(
        "{looked_at} files of Rust, {} breaches of the house rules",
        breaches.len()
    ));
    Ok(if breaches.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

/// What git knows, and what it would take; without git, all there is.
fn files() -> Result<Vec<String>> {
    let mut command = Command::new("git");
    command.current_dir(root());
    // A checkout may belong to somebody else than whoever runs this, as in a container.
    command.args(["-c", "safe.directory=*", "ls-files", "--cached", "--others"]);
    command.args(["--exclude-standard", "--deduplicate"]);
    match capture(command, Duration::from_secs(60)) {
        Ok((ended, output)) if ended.success() => {
            return Ok(output.lines().map(str::to_owned).collect());
        }
        Err(error) if error.is::<Interrupted>() => return Err(error),
        _ => echo("git does not list the files here: taking all but target"),
    }
    let mut files = Vec::new();
    walk(root(), &mut files)?;
    files.sort();
    Ok(files)
}

/// Collects paths below the root, other than those of build output and hidden directories.
fn walk(dir: &Path, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else if let Ok(path) = path.strip_prefix(root()) {
            files.push(path.display().to_string());
        }
    }
    Ok(())
}

fn check_file(path: &str, source: &str, breaches: &mut Vec<Breach>) {
    let mut breach = |line: usize, what: String| {
        breaches.push(Breach {
            path: path.to_owned(),
            line,
            what,
        });
    };
    // What the compiler must refuse is written to be refused, not to be read.
    let fixture = path.contains("/ui/") && path.split('/').any(|part| part == "tests");
    if !fixture && !source.starts_with("//!") {
        breach(
            1,
            "does not begin with `//!` and why the file exists".into(),
        );
    }
    let length = source.lines().count();
    if length > LONGEST {
        breach(
            length,
            format!("has {length} lines; {LONGEST} are the most"),
        );
    }
    let code = code_only(source);
    for (number, line) in code.lines().enumerate() {
        for word in FORBIDDEN {
            if contains_word(line, word) {
                breach(number + 1, format!("`{word}` must not stay"));
            }
        }
        if line.contains("#[ignore]") {
            breach(number + 1, "`#[ignore]` without a reason".into());
        }
    }
    let under_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    if path.starts_with(MACHINES) && !under_test {
        for (number, line) in without_tests(&code).lines().enumerate() {
            for word in IMPURE {
                if contains_word(line, word) {
                    breach(
                        number + 1,
                        format!("`{word}`: time, threads and sockets come from outside"),
                    );
                }
            }
        }
    }
}

/// The two faces of a transport must not drift apart.
fn check_twins(one: &str, other: &str, breaches: &mut Vec<Breach>) {
    let (one, other) = (code_only(one), code_only(other));
    for name in ["Transport", "Consumer"] {
        let mut breach = |path: &str, what: String| {
            breaches.push(Breach {
                path: path.to_owned(),
                line: 1,
                what,
            });
        };
        match (trait_functions(&one, name), trait_functions(&other, name)) {
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => breach(
                TWINS[1],
                format!(
                    "`{name}` lists {}, but its twin in {} lists {}",
                    other.join(", "),
                    TWINS[0],
                    one.join(", ")
                ),
            ),
            (one, _) => {
                let path = if one.is_none() { TWINS[0] } else { TWINS[1] };
                breach(path, format!("there is no trait `{name}` here"));
            }
        }
    }
}

fn check_members(manifest: &str, breaches: &mut Vec<Breach>) {
    let lines = manifest.lines().enumerate();
    let members = lines
        .skip_while(|(_, line)| !line.starts_with("members"))
        .skip(1)
        .take_while(|(_, line)| !line.starts_with(']'));
    let mut count = 0;
    for (number, line) in members {
        count += 1;
        let purpose = line
            .split_once('#')
            .map_or("", |(_, purpose)| purpose.trim());
        if line.trim_start().starts_with('"') && purpose.is_empty() {
            let what = "a member without a comment on its purpose".to_owned();
            breaches.push(Breach {
                path: "Cargo.toml".into(),
                line: number + 1,
                what,
            });
        }
    }
    if count == 0 {
        let what = "the list of members was not found".to_owned();
        breaches.push(Breach {
            path: "Cargo.toml".into(),
            line: 1,
            what,
        });
    }
}

/// Finds a word that is not the tail of a longer one, whatever stands before a leading path.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

/// The longest that a file of Rust may be.
const LONGEST: usize = 500;

/// Marks of unfinished work.
const FORBIDDEN: &[&str] = &["todo!(", "unimplemented!(", "dbg!("];

/// The crate that decides and must not act.
const MACHINES: &str = "crates/rpc-proto/src/";

const IMPURE: &[&str] = &["Instant::now", "SystemTime::now", "thread::", "std::net"];

/// The async face and the blocking face.
const TWINS: [&str; 2] = [
    "crates/rpc-core/src/transport.rs",
    "crates/rpc-core/src/blocking/transport.rs",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(path: &str, source: &str) -> Vec<(usize, String)> {
        let mut breaches = Vec::new();
        check_file(path, source, &mut breaches);
        breaches
            .into_iter()
            .map(|breach| (breach.line, breach.what))
            .collect()
    }

    #[test]
    fn tidy_file_has_no_breaches() {
        let source = "//! Exists.\n// A todo!() in a comment is talk.\n\
            const A: &str = \"dbg!(x)\";\n#[ignore = \"needs a broker\"]\nfn f() {}\n";
        assert!(breaches("crates/x/src/lib.rs", source).is_empty());
    }

    #[test]
    fn header_is_required_except_in_fixtures() {
        assert_eq!(breaches("crates/x/src/a.rs", "fn f() {}\n").len(), 1);
        assert!(breaches("crates/x/tests/ui/a.rs", "fn f() {}\n").is_empty());
        assert!(breaches("tests/tests/it/ui/a.rs", "fn f() {}\n").is_empty());
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        let found = breaches(
            "a.rs",
            "//! A.\nfn f() {\n    todo!()\n}\n#[ignore]\nfn g() {}\n",
        );
        assert_eq!(
            found.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [3, 5]
        );
        assert!(breaches("a.rs", "//! A.\nfn f() { my_todo!() }\n").is_empty());
    }

    #[test]
    fn long_file_is_a_breach() {
        let source = format!("//! A.\n{}", "\n".repeat(LONGEST));
        assert_eq!(breaches("a.rs", &source).len(), 1);
    }

    #[test]
    fn machines_must_be_pure_outside_their_tests() {
        let source = "//! A.\nfn f() { std::time::Instant::now(); }\n\
            #[cfg(test)]\nmod tests { use std::thread::spawn; }\n";
        assert_eq!(breaches("crates/rpc-proto/src/a.rs", source).len(), 1);
        assert!(breaches("crates/rpc-core/src/a.rs", source).is_empty());
        assert!(breaches("crates/rpc-proto/src/a/tests.rs", source).is_empty());
    }

    #[test]
    fn twins_must_list_the_same_functions_in_the_same_order() {
        let one = "trait Transport { fn a(); fn b(); } trait Consumer { fn c(); }";
        let turned = "trait Transport { fn b(); fn a(); } trait Consumer { fn c(); }";
        let check = |one: &str, other: &str| {
            let mut breaches = Vec::new();
            check_twins(one, other, &mut breaches);
            breaches.len()
        };
        assert_eq!(check(one, &one.replace("fn", "async fn")), 0);
        assert_eq!(check(one, turned), 1);
        assert_eq!(check(one, ""), 2);
    }

    #[test]
    fn every_member_needs_a_purpose() {
        let mut breaches = Vec::new();
        check_members(
            "[workspace]\nmembers = [\n  \"a\", # why\n  \"b\",\n]\n",
            &mut breaches,
        );
        assert_eq!(
            breaches
                .iter()
                .map(|breach| breach.line)
                .collect::<Vec<_>>(),
            [4]
        );
        breaches.clear();
        check_members("[workspace]\n", &mut breaches);
        assert_eq!(breaches.len(), 1);
    }
}
