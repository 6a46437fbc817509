//! All members of the workspace have the same form.

use crate::workspace::members;

/// What every member takes from the workspace.
const INHERITED: [&str; 5] = [
    "version.workspace = true",
    "edition.workspace = true",
    "rust-version.workspace = true",
    "license.workspace = true",
    "publish.workspace = true",
];

#[test]
fn members_inherit_their_package_and_their_lints() {
    for package in members() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        for line in INHERITED {
            assert!(
                has_line(&manifest, "[package]", line),
                "{}: [package] lacks `{line}`",
                package.manifest_path
            );
        }
        let lints = has_line(&manifest, "[lints]", "workspace = true");
        assert!(
            lints,
            "{}: [lints] lacks `workspace = true`",
            package.manifest_path
        );
    }
}

/// A description is one sentence.
#[test]
fn members_describe_themselves() {
    for package in members() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let description = manifest
            .lines()
            .find_map(|line| line.strip_prefix("description = \"")?.strip_suffix(".\""));
        assert!(
            description.is_some_and(|text| !text.contains(". ")),
            "{}: [package] lacks a description of one sentence",
            package.manifest_path
        );
    }
}

/// All members use one version and one set of features of a dependency, written only in the root manifest.
#[test]
fn dependencies_come_from_the_workspace() {
    for package in members() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let mut in_dependencies = false;
        for (number, line) in manifest.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
                let table = in_dependencies && line.contains("dependencies.");
                assert!(
                    !table,
                    "{}:{}: write it in one line",
                    package.manifest_path,
                    number + 1
                );
            } else if in_dependencies && !line.trim().is_empty() && !line.starts_with('#') {
                let inherited = line.contains("workspace = true");
                assert!(
                    inherited,
                    "{}:{}: not from the workspace: {line}",
                    package.manifest_path,
                    number + 1
                );
            }
        }
    }
}

fn has_line(manifest: &str, section: &str, wanted: &str) -> bool {
    let lines = manifest
        .lines()
        .skip_while(|line| line.trim() != section)
        .skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.trim() == wanted)
}

#[test]
fn a_line_is_found_in_its_own_section_only() {
    let manifest = "[package]\na = 1\n\n[lints]\nworkspace = true\n";
    assert!(
        has_line(manifest, "[package]", "a = 1")
            && has_line(manifest, "[lints]", "workspace = true")
    );
    assert!(!has_line(manifest, "[package]", "workspace = true"));
}
