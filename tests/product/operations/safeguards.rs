//! What the program prevents on a machine: databases that no operator asked for, two gateways on one file, and lines
//! that are not JSON in a JSON log.

use std::{net::TcpListener, path::Path};

use serde_json::Value;

use crate::world::{Ended, Mode, Running, TEMPLATE, World, free_port, run, wxgate};

const APP: &str = "wx00000000000000a1";

fn ask(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = wxgate(folder);
    command.args(arguments);
    run(command)
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_command_in_the_wrong_folder_makes_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wxgate-data/wxgate.db");
    for command in [
        &["tenant", "list"][..],
        &["tenant", "create", "Acme"],
        &["key", "list", "--operator"],
        &["app", "list"],
        &["migrate", "status"],
        &["migrate", "down"],
        &["master-key", "rotate"],
        &["signing-key", "list"],
    ] {
        let told = ask(folder.path(), command).expect(1).stderr();
        let words = format!("there is no database at {}", file.display());
        assert!(told.contains(&words), "{command:?}: {told}");
        assert!(told.contains("wxgate migrate up"), "{told}");
        assert!(is_empty(folder.path()), "{command:?} wrote something");
    }
    let report = ask(folder.path(), &["doctor"]).stdout();
    assert!(report.contains(&file.display().to_string()), "{report}");
    assert!(is_empty(folder.path()), "doctor wrote something");
    ask(folder.path(), &["migrate", "up"]).expect(0);
    ask(folder.path(), &["tenant", "create", "Acme"]).expect(0);
    let shown = ask(folder.path(), &["config"]).expect(0).stdout();
    assert!(
        shown.contains(&format!("sqlite://{}", file.display())),
        "{shown}"
    );
}

#[test]
fn a_demo_that_cannot_start_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    let port = taken.port().to_string();
    let free = format!("127.0.0.1:{}", free_port());
    for arguments in [
        ["--listen", &taken.to_string(), "--simulator-port", "0"],
        ["--listen", &free, "--simulator-port", &port],
    ] {
        let told = ask(folder.path(), &[&["dev"], &arguments[..]].concat());
        let told = told.expect(1).stderr();
        assert!(told.contains(&port), "{told}");
        assert!(is_empty(folder.path()), "{arguments:?} left something");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gateway_has_an_embedded_database_to_itself() {
    let mut world = World::plan(Mode::Embedded).own_process().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let told = run(world.wxgate(&serve)).expect(1).stderr();
    for words in ["another wxgate runs on this database", "wxgate.db"] {
        assert!(told.contains(words), "{told}");
    }
    run(world.wxgate(&["tenant", "list"])).expect(0);
    let send = ["send", "--appid", APP, "--to", "o1", "--template", TEMPLATE];
    run(world.wxgate(&[&send[..], &["--data", "thing1=x"]].concat())).expect(0);
    // The next gateway can start on the file, however the one before ended.
    world.kill_replica();
    world.add_replica(true).await;
}

#[tokio::test]
async fn a_log_of_json_has_nothing_else_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = wxgate(folder.path());
    command
        .args(["serve", "--listen", &address])
        .env("WXGATE_LOG_FORMAT", "json");
    let mut running = Running::start(command, folder.path().join("log"));
    running.wait_ready(&format!("http://{address}")).await;
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
    let said = running.said();
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).expect(line);
        assert!(line["level"].is_string(), "{line}");
    }
    assert!(
        said.contains(&format!("\"address\":\"{address}\"")),
        "{said}"
    );
}

#[test]
fn a_filter_that_would_silence_the_log_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for filter in ["warning", "verbose", "bogus="] {
        let mut command = wxgate(folder.path());
        command.arg("config").env("WXGATE_LOG", filter);
        let told = run(command).expect(1).stderr();
        for words in ["WXGATE_LOG", filter, "error, warn, info, debug, trace, off"] {
            assert!(told.contains(words), "{told}");
        }
    }
}
