//! What the program keeps private: files, memory, typed secrets, and the address where it listens.

use std::{
    fs::Permissions,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, header},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{net::TcpListener, task::JoinSet};

use crate::world::{Running, eventually, free_port, run, wxgate};

/// Starts a gateway in this folder with these additional settings. Returns the process and its URL.
async fn serve(folder: &Path, settings: &[(&str, &str)]) -> (Running, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = wxgate(folder);
    command
        .args(["serve", "--listen", &address])
        .env("WXGATE_WECHAT_BASE_URL", "http://127.0.0.1:9")
        .envs(settings.iter().copied());
    let mut running = Running::start(command, folder.join("log"));
    let url = format!("http://{address}");
    running.wait_ready(&url).await;
    (running, url)
}

fn rights(path: &Path) -> u32 {
    path.metadata().expect("a file").permissions().mode() & 0o777
}

/// The files in the folder of the database, with the permissions of each.
fn files(folder: &Path) -> Vec<(String, u32)> {
    let found = std::fs::read_dir(folder.join("wxgate-data")).expect("a folder");
    let mut files: Vec<_> = found
        .map(|entry| {
            let path = entry.expect("a file").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, rights(&path))
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn only_the_owner_reads_the_files_of_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = [
        "master.key",
        "wxgate.db",
        "wxgate.db-shm",
        "wxgate.db-wal",
        "wxgate.db.lock",
    ];
    let private = all.map(|name| (name.to_owned(), 0o600));
    let (mut running, _) = serve(folder.path(), &[]).await;
    assert_eq!(files(folder.path()), private);
    assert_eq!(rights(&folder.path().join("wxgate-data")), 0o700);
    running.kill();
    // Files from a time when the permissions were too wide.
    for name in &all[1..] {
        let path = folder.path().join("wxgate-data").join(name);
        std::fs::set_permissions(path, Permissions::from_mode(0o664)).expect("other rights");
    }
    let (running, _) = serve(folder.path(), &[]).await;
    assert_eq!(files(folder.path()), private);
    let said = running.said();
    assert!(
        said.contains("other users could open a file of the database"),
        "{said}"
    );
}

#[tokio::test]
async fn a_crash_dumps_no_memory_by_default() {
    // The program inherits a limit that permits core dumps of every size that this machine permits.
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).expect("a limit");
    assert!(
        most > 0,
        "this machine permits no core dumps at all: run the tests where it does"
    );
    setrlimit(Resource::RLIMIT_CORE, most, most).expect("the limit that is there");
    for (wanted, refused) in [("false", true), ("true", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (running, _) = serve(folder.path(), &[("WXGATE_CORE_DUMPS", wanted)]).await;
        let limits = running.process_file("limits");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let soft = line
            .and_then(|line| line.split_whitespace().nth(4))
            .expect("a limit");
        assert_eq!(soft == "0", refused, "WXGATE_CORE_DUMPS={wanted}: {limits}");
    }
}

#[test]
fn a_typed_secret_is_not_shown() {
    const TYPED: &str = "0123456789abcdef0123456789abcdef";
    let folder = tempfile::tempdir().expect("a folder");
    run({
        let mut command = wxgate(folder.path());
        command.args(["migrate", "up"]);
        command
    })
    .expect(0);
    let terminal = nix::pty::openpty(None, None).expect("a terminal");
    let mut command = wxgate(folder.path());
    command
        .args([
            "app",
            "set-secret",
            "--appid",
            "wx00000000000000a1",
            "--secret-stdin",
        ])
        .stdin(Stdio::from(terminal.slave))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("wxgate starts");
    // The terminal stays open as long as any process holds its other end, and the command holds that end until dropped.
    drop(command);
    let mut asked = [0; 8];
    child
        .stderr
        .as_mut()
        .expect("a pipe")
        .read_exact(&mut asked)
        .expect("a question");
    let mut person = std::fs::File::from(terminal.master);
    person.write_all(TYPED.as_bytes()).expect("a secret");
    person.write_all(b"\n").expect("Enter");
    let ended = child.wait_with_output().expect("its end");
    // The app does not exist: the program has read the secret all the same.
    assert_eq!(ended.status.code(), Some(1));
    let mut shown = Vec::new();
    // A read from a terminal with a closed other end gives an error.
    let _ = person.read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let said = format!(
        "{shown}{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(said.contains("the input is not shown"), "{said}");
    assert!(!said.contains(TYPED), "{said}");
}

#[test]
fn passwords_are_not_accepted_as_arguments() {
    for (flag, url) in [
        ("--database-url", "postgres://wx:s3cret@db/wxgate"),
        (
            "--database-url",
            "postgres://db/wxgate?user=wx&password=s3cret",
        ),
        ("--redis-url", "redis://:s3cret@cache:6379/0"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = wxgate(folder.path());
        command.args(["config", flag, url]);
        let refused = run(command).expect(1).stderr();
        let variable = format!("WXGATE_{}", flag[2..].replace('-', "_").to_uppercase());
        assert!(refused.contains(&variable), "{refused}");
        assert!(!refused.contains("s3cret"), "{refused}");
    }
    // A URL without a password is accepted as an argument.
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = wxgate(folder.path());
    command.args(["config", "--database-url", "sqlite://other/wxgate.db"]);
    run(command).expect(0);
}

#[test]
fn a_settings_file_with_secrets_that_others_can_read_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wxgate.toml");
    for (text, mode, told) in [
        ("database_url = \"sqlite://a/b.db\"\n", 0o644, false),
        (
            "master_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\n",
            0o600,
            false,
        ),
        (
            "master_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\n",
            0o640,
            true,
        ),
    ] {
        std::fs::write(&file, text).expect("a file");
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("its rights");
        let mut command = wxgate(folder.path());
        command.args(["config", "--config", "wxgate.toml"]);
        let ended = run(command).expect(0);
        let said = ended.stdout() + &ended.stderr();
        assert_eq!(
            said.contains("other users can read the settings file"),
            told,
            "{said}"
        );
    }
}

#[test]
fn a_master_key_that_others_can_read_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("master.key");
    std::fs::write(&file, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").expect("a key");
    let ask = |arguments: &[&str]| {
        let mut command = wxgate(folder.path());
        command.args(arguments).env("WXGATE_MASTER_KEY_FILE", &file);
        run(command)
    };
    let mode = |mode: u32| {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("its rights");
    };
    mode(0o600);
    ask(&["migrate", "up"]).expect(0);
    for (rights, status) in [(0o644, "warning"), (0o640, "warning"), (0o600, "ok")] {
        mode(rights);
        let report = ask(&["doctor", "--json"]).json();
        let checks = report["checks"].as_array().expect("checks");
        let found = checks.iter().find(|one| one["check"] == "master key");
        let found = found.unwrap_or_else(|| panic!("no master key: {report}"));
        assert_eq!(found["status"], status, "{rights:o}: {found}");
        let chmod = format!("`chmod 600 {}`", file.display());
        assert_eq!(
            found["next"].to_string().contains(&chmod),
            rights != 0o600,
            "{found}"
        );
    }
}

/// Starts a server that gives this answer to every request. Returns its URL and the number of requests so far.
async fn server(
    serving: &mut JoinSet<()>,
    answer: (StatusCode, String),
) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let counted = asked.clone();
    let routes = Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let (status, location) = answer.clone();
        async move { (status, [(header::LOCATION, location)]) }
    });
    serving.spawn(async move { axum::serve(listener, routes).await.expect("a server") });
    (url, asked)
}

#[tokio::test]
async fn traces_go_to_the_collector_and_nowhere_else() {
    let mut serving = JoinSet::new();
    let (elsewhere, redirected) = server(&mut serving, (StatusCode::OK, String::new())).await;
    let (proxy, proxied) = server(&mut serving, (StatusCode::OK, String::new())).await;
    let redirect = (
        StatusCode::TEMPORARY_REDIRECT,
        format!("{elsewhere}/v1/traces"),
    );
    let (collector, asked) = server(&mut serving, redirect).await;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        ("WXGATE_OTLP_ENDPOINT", collector.as_str()),
        ("http_proxy", &proxy),
        ("HTTP_PROXY", &proxy),
        ("ALL_PROXY", &proxy),
    ];
    let (mut running, url) = serve(folder.path(), &settings).await;
    let there =
        || (asked.load(Ordering::Relaxed) + proxied.load(Ordering::Relaxed) > 0).then_some(());
    eventually("traces have left", || async {
        reqwest::get(format!("{url}/healthz")).await.ok()?;
        there()
    })
    .await;
    assert_eq!(running.wait_terminated().await, Some(0));
    let counts = [&asked, &redirected, &proxied].map(|count| count.load(Ordering::Relaxed));
    assert!(counts[0] > 0, "{counts:?}");
    assert_eq!(
        counts[1..],
        [0, 0],
        "the collector, where it points, the proxy: {counts:?}"
    );
}
