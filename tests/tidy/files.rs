//! Short files, and tests that neither wait by the clock nor skip themselves.

use crate::workspace::{root, shown, sources};

/// The most lines that a reader can follow, without unit tests at the end of the file. Split a longer file by noun, not by number.
const LONGEST_FILE: usize = 450;

#[test]
fn files_are_short_enough_to_read() {
    let mut long = Vec::new();
    for path in ["crates", "migrations", "tests"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)))
    {
        // Test suites of crates are lists of cases: readers search in such files and do not read from top to bottom.
        if shown(&path).split('/').nth(2) == Some("tests") {
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        let code = source
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        let lines = code.lines().count();
        if lines > LONGEST_FILE {
            long.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    assert!(
        long.is_empty(),
        "over {LONGEST_FILE} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn product_tests_wait_on_conditions_and_skip_nothing() {
    // The words are put together here, because otherwise this file would be its own first finding.
    let forbidden = [
        (concat!("sleep", "("), "wait with `world::eventually`"),
        (concat!("#[ig", "nore"), "a test that is skipped is a wish"),
        (concat!("to", "do!"), "write it"),
    ];
    for path in sources(&root().join("tests")) {
        let source = std::fs::read_to_string(&path).unwrap();
        for (number, line) in source.lines().enumerate() {
            for (pattern, advice) in forbidden {
                assert!(
                    !line.contains(pattern),
                    "{}:{}: `{pattern}`: {advice}",
                    shown(&path),
                    number + 1
                );
            }
        }
    }
}
