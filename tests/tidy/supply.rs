//! What the program is made of: licences, banned crates and sources, as `deny.toml` has them.
//!
//! `make deny` asks cargo-deny the same, and about known vulnerabilities as well. cargo-deny takes long to build and
//! needs the advisories' database, so this test checks on every run what needs neither.

use std::{collections::BTreeSet, process::Command};

use cargo_metadata::{MetadataCommand, Package};
use spdx::{Expression, LicenseReq, ParseMode};
use toml::{Table, Value};

use crate::workspace::root;

/// The only source of crates.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn deny() -> Table {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    text.parse().expect("deny.toml is TOML")
}

/// All crates of other authors that are built for the platforms of `deny.toml`, including those of tests. The command
/// `cargo metadata` alone would also name what an optional feature could bring.
fn foreign() -> Vec<Package> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .expect("cargo metadata");
    let deny = deny();
    let mut built = BTreeSet::new();
    for platform in words(&deny["graph"]["targets"]) {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "--workspace", "--target", platform])
            .args(["--edges", "normal,build,dev", "--prefix", "none"])
            .args(["--format", "{p}"])
            .current_dir(root());
        let output = tree.output().expect("cargo tree");
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).expect("text");
        // `serde v1.0.229`, and for a crate that was listed before also ` (*)`.
        let names = lines.lines().filter_map(|line| line.split_once(" v"));
        built.extend(names.map(|(name, rest)| {
            let version = rest.split(' ').next().unwrap_or_default();
            format!("{name} {version}")
        }));
    }
    let ours = &metadata.workspace_members;
    let others = metadata.packages.iter().filter(|package| {
        let name = format!("{} {}", package.name, package.version);
        built.contains(&name) && !ours.contains(&package.id)
    });
    let others: Vec<Package> = others.cloned().collect();
    assert!(others.len() > 100, "{} crates", others.len());
    others
}

fn words(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether the allowed licences suffice for `expression`.
fn suffices(expression: &str, allowed: &[LicenseReq]) -> bool {
    let parsed = Expression::parse_mode(expression, ParseMode::LAX);
    parsed.is_ok_and(|parsed| parsed.evaluate(|wanted| allowed.contains(wanted)))
}

fn allowed(deny: &Table) -> Vec<LicenseReq> {
    let allowed = words(&deny["licenses"]["allow"]).map(|text| {
        let expression = Expression::parse(text);
        let expression = expression.unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut wanted = expression.requirements();
        wanted.next().expect("a licence").req.clone()
    });
    allowed.collect()
}

#[test]
fn every_crate_may_be_shipped() {
    let deny = deny();
    let allowed = allowed(&deny);
    let refused: Vec<String> = foreign()
        .iter()
        .filter(|package| {
            let licence = package.license.as_deref().unwrap_or_default();
            !suffices(licence, &allowed)
        })
        .map(|package| {
            format!(
                "{} {}: {}",
                package.name,
                package.version,
                package.license.as_deref().unwrap_or("none named")
            )
        })
        .collect();
    assert!(
        refused.is_empty(),
        "[licenses] of deny.toml allows none of these:\n{}",
        refused.join("\n")
    );
}

#[test]
fn no_crate_is_banned_and_all_come_from_the_registry() {
    let deny = deny();
    let banned = deny["bans"]["deny"].as_array().expect("bans");
    let banned: BTreeSet<&str> = banned
        .iter()
        .filter_map(|ban| ban["crate"].as_str())
        .collect();
    assert!(!banned.is_empty());
    for package in foreign() {
        assert!(
            !banned.contains(package.name.as_str()),
            "{} is banned in deny.toml: `cargo tree -i {}` says whose it is",
            package.name,
            package.name
        );
        let source = package.source.as_ref().map(|source| source.repr.as_str());
        assert_eq!(source, Some(REGISTRY), "{}", package.name);
    }
}

#[test]
fn a_licence_is_enough_where_one_of_its_ways_is_allowed() {
    let allowed = allowed(&deny());
    for (expression, fine) in [
        ("MIT OR GPL-3.0", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT AND GPL-3.0-only", false),
        ("AGPL-3.0-or-later", false),
        ("", false),
        ("Proprietary", false),
    ] {
        assert_eq!(suffices(expression, &allowed), fine, "{expression}");
    }
}
