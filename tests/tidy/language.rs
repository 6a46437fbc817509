//! Comments, documentation and type names stay readable, by the counts of `scripts/language`.

use std::process::Command;

use crate::workspace::root;

#[test]
fn comments_and_names_keep_to_the_limits() {
    let counted = Command::new(root().join("scripts/language"))
        .arg("--check")
        .output()
        .expect("python3: run `make setup`");
    let figures = String::from_utf8_lossy(&counted.stdout);
    let above = String::from_utf8_lossy(&counted.stderr);
    assert!(counted.status.success(), "{figures}{above}");
}
