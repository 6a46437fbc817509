//! Which crate may use which: the table of docs/ARCHITECTURE.md.

use std::{
    collections::{BTreeSet, HashSet},
    process::Command,
};

use cargo_metadata::DependencyKind;

use crate::workspace::{members, root};

/// A crate and the crates of this repository that the crate may use: only crates of lower levels.
const ARROWS: &[(&str, &[&str])] = &[
    ("wxgate-migrations", &[]),
    ("wxgate-domain", &[]),
    ("wxgate-wechat", &["domain"]),
    ("wxgate-store", &["domain", "migrations"]),
    ("wxgate-coord", &["domain"]),
    ("wxgate-broker", &["domain", "wechat", "coord"]),
    ("wxgate-tenancy", &["domain", "store", "coord"]),
    (
        "wxgate-delivery",
        &["domain", "store", "coord", "wechat", "broker"],
    ),
    ("wxgate-api", &["domain", "store", "tenancy", "delivery"]),
    (
        "wxgate-console",
        &["domain", "store", "tenancy", "delivery"],
    ),
    ("wxgate-simulator", &[]),
    ("wxgate-testkit", &[]),
];

/// These crates may use everything.
const FREE: [&str; 2] = ["wxgate", "wxgate-tests"];

/// What the tests of every crate may use besides.
const IN_TESTS: [&str; 2] = ["wxgate-simulator", "wxgate-testkit"];

/// Crates that would bring a runtime, randomness or the outside world into the domain.
const NOT_IN_DOMAIN: [&str; 9] = [
    "tokio",
    "rand",
    "async-trait",
    "futures",
    "reqwest",
    "sea-orm",
    "sqlx",
    "redis",
    "axum",
];

/// The one crypto provider is aws-lc-rs: with two providers, rustls refuses to choose.
const NOT_IN_THE_BINARY: [&str; 4] = ["ring", "openssl", "openssl-sys", "native-tls"];

#[test]
fn crates_use_only_what_lies_below_them() {
    let ours: HashSet<&str> = members()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    for package in members() {
        let name = package.name.as_str();
        if FREE.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
            panic!(
                "{name} is not in the table: say in tests/tidy/arrows.rs and docs/ARCHITECTURE.md what it may use"
            );
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let fine = !ours.contains(used)
                || allowed
                    .iter()
                    .any(|allowed| used.strip_prefix("wxgate-") == Some(allowed))
                || (dependency.kind == DependencyKind::Development && IN_TESTS.contains(&used));
            assert!(
                fine,
                "{name} must not use {used}: arrows point down (docs/ARCHITECTURE.md)"
            );
        }
    }
}

#[test]
fn the_table_names_no_crate_that_is_gone() {
    let ours: BTreeSet<&str> = members()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let table: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).chain(FREE).collect();
    assert_eq!(table, ours);
}

#[test]
fn the_domain_has_no_runtime_no_io_and_no_randomness() {
    let domain = members()
        .into_iter()
        .find(|package| package.name.as_str() == "wxgate-domain")
        .expect("domain");
    for dependency in domain
        .dependencies
        .iter()
        .filter(|used| used.kind == DependencyKind::Normal)
    {
        assert!(
            !NOT_IN_DOMAIN.contains(&dependency.name.as_str()),
            "domain must not use {}",
            dependency.name
        );
    }
    // Indirect dependencies may do anything except bring a runtime.
    let reached = built_with("wxgate-domain");
    for name in NOT_IN_DOMAIN.into_iter().filter(|name| *name != "rand") {
        assert!(
            !reached.contains(name),
            "domain reaches {name}: `cargo tree -p wxgate-domain -i {name}` says how"
        );
    }
}

#[test]
fn the_binary_has_one_tls_and_one_crypto_provider() {
    let names = built_with("wxgate");
    assert!(
        names.contains("aws-lc-rs"),
        "the provider itself: {names:?}"
    );
    for name in NOT_IN_THE_BINARY {
        assert!(
            !names.contains(name),
            "wxgate is built with {name}: `cargo tree -i {name}` says whose it is"
        );
    }
}

/// The names of all crates that a package is built with on this platform, without its tests. `cargo metadata` would
/// also name what an optional feature could bring.
fn built_with(package: &str) -> BTreeSet<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args([
        "tree",
        "--locked",
        "--package",
        package,
        "--edges",
        "normal,build",
    ]);
    tree.args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root());
    let output = tree.output().expect("cargo tree");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).expect("text");
    lines
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}
