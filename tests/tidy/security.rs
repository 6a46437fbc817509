//! Every promise of `docs/SECURITY.md` has a test, and the page names the test.

use std::collections::HashSet;

use crate::workspace::{root, sources};

/// The sections that promise something.
const PROMISES: [&str; 8] = [
    "Secrets at rest",
    "Authentication and authorization",
    "Audit log",
    "Limits",
    "Callbacks",
    "Pass-through calls",
    "Compression and CORS",
    "Webhooks and SSRF",
];

/// The names of all functions of the repository.
fn functions() -> HashSet<String> {
    let files = ["crates", "tests"]
        .iter()
        .flat_map(|folder| sources(&root().join(folder)));
    let mut names = HashSet::new();
    for file in files {
        let source = std::fs::read_to_string(file).unwrap();
        let names_in = source.split("fn ").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            rest[..end.unwrap_or(rest.len())].to_owned()
        });
        names.extend(names_in);
    }
    names
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The tests that a section names: in paragraphs that begin with "Held by", and in the last column of tables with that
/// heading.
fn tests_of(section: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for paragraph in section.split("\n\n") {
        if paragraph.trim_start().starts_with("Held by") {
            names.extend(quoted(paragraph));
        }
        let mut rows = paragraph.lines().filter(|line| line.starts_with('|'));
        if rows
            .next()
            .is_some_and(|head| head.ends_with("| held by |"))
        {
            for row in rows.skip(1) {
                let cell = row.trim_end_matches('|').rsplit('|').next();
                let held = quoted(cell.unwrap_or_default());
                assert!(!held.is_empty(), "docs/SECURITY.md: no test holds `{row}`");
                names.extend(held);
            }
        }
    }
    names
}

#[test]
fn every_promise_of_the_security_page_names_the_tests_that_hold_it() {
    let page = std::fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let functions = functions();
    for title in PROMISES {
        let section = page
            .split("\n## ")
            .find(|section| section.starts_with(title));
        let section = section.unwrap_or_else(|| panic!("docs/SECURITY.md has no `{title}`"));
        let tests = tests_of(section);
        assert!(
            !tests.is_empty(),
            "docs/SECURITY.md, `{title}`: write which tests hold it, `Held by …`"
        );
        for test in tests {
            assert!(
                functions.contains(test),
                "docs/SECURITY.md, `{title}`: there is no test `{test}`"
            );
        }
    }
}
