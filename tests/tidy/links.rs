//! Links between the pages of the documentation lead to files.

use std::path::Path;

use crate::workspace::{root, shown};

/// The targets of the links in a Markdown text.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// The links of a page to files that do not exist.
fn broken(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let files = targets(&text)
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or_default());
    let missing = files.filter(|file| !page.with_file_name(file).exists());
    missing
        .map(|file| format!("{}: {file}", shown(page)))
        .collect()
}

#[test]
fn every_link_leads_to_a_file() {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    let pages = docs.map(|entry| entry.unwrap().path());
    let pages = pages.chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let pages = pages.filter(|page| page.extension().is_some_and(|kind| kind == "md"));
    let broken: Vec<_> = pages.flat_map(|page| broken(&page)).collect();
    assert!(broken.is_empty(), "missing files:\n{}", broken.join("\n"));
}

#[test]
fn a_link_to_a_missing_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    std::fs::write(
        &page,
        "[a](page.md#part) [b](gone.md) [c](https://a.example/b) [d](#here)",
    )
    .unwrap();
    let found = broken(&page);
    assert!(
        found.len() == 1 && found[0].ends_with("gone.md"),
        "{found:?}"
    );
}
