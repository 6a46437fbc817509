//! Which crate may use which: the table of docs/ARCHITECTURE.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use cargo_metadata::DependencyKind;

use crate::workspace::{members, root};

/// The page whose table this test enforces.
const PAGE: &str = "docs/ARCHITECTURE.md";

/// The first cells of the head of the table.
const HEAD: &str = "| crate | what it is for | may depend on |";

/// The tests meet every crate, so that the table does not list them.
const TESTS: &str = "wxgate-tests";

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

/// Which crates of this repository a crate may use.
#[derive(Debug, PartialEq)]
enum Allowed {
    All,
    Only(BTreeSet<String>),
}

/// The crates of the table in `page`, by package name, with the packages that each crate may use.
///
/// The last column holds `all`, `–` for none, or names with commas between. Text in parentheses explains and is skipped.
fn table_of(page: &str) -> BTreeMap<String, Allowed> {
    let lines = page.lines().skip_while(|line| *line != HEAD);
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, _, allowed] = cells[..] else {
            panic!("{PAGE}: this row has not three cells: {row}");
        };
        (package_of(name.trim_matches('`')), allowed_of(allowed))
    })
    .collect()
}

/// What a cell of the last column allows.
fn allowed_of(cell: &str) -> Allowed {
    let names = cell.split(" (").next().unwrap_or_default();
    match names {
        "all" => Allowed::All,
        "–" => Allowed::Only(BTreeSet::new()),
        _ => Allowed::Only(names.split(", ").map(package_of).collect()),
    }
}

/// The name of the package of a crate: `gateway` is the binary.
fn package_of(name: &str) -> String {
    match name {
        "gateway" => "wxgate".to_owned(),
        _ => format!("wxgate-{name}"),
    }
}

/// The table of the page.
fn table() -> BTreeMap<String, Allowed> {
    table_of(&std::fs::read_to_string(root().join(PAGE)).expect("the page"))
}

/// The names of all packages of this repository.
fn ours() -> BTreeSet<String> {
    let names = members()
        .into_iter()
        .map(|package| package.name.to_string());
    names.collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let (ours, table) = (ours(), table());
    for package in members() {
        let name = package.name.as_str();
        // The next test finds crates that the table does not list.
        let Some(Allowed::Only(allowed)) = table.get(name) else {
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let fine = !ours.contains(used)
                || allowed.contains(used)
                || (dependency.kind == DependencyKind::Development && IN_TESTS.contains(&used));
            assert!(
                fine,
                "{name} must not use {used}: arrows point down ({PAGE})"
            );
        }
    }
}

#[test]
fn the_table_lists_every_crate() {
    let mut listed: BTreeSet<String> = table().into_keys().collect();
    listed.insert(TESTS.to_owned());
    assert_eq!(listed, ours(), "{PAGE} says what each crate may use");
}

#[test]
fn a_table_is_read_with_its_exceptions() {
    let page = format!(
        "# Crates\n\n{HEAD}\n| --- | --- | --- |\n| `gateway` | x | all |\n| `a` | x | – (because) |\n| `b` | x | a, c |\n\n| `d` | x | a |\n"
    );
    let only = |names: &[&str]| Allowed::Only(names.iter().map(|name| package_of(name)).collect());
    let expected = [
        ("wxgate".to_owned(), Allowed::All),
        ("wxgate-a".to_owned(), only(&[])),
        ("wxgate-b".to_owned(), only(&["a", "c"])),
    ];
    assert_eq!(table_of(&page), BTreeMap::from(expected));
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
