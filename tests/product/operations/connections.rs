//! Connections to PostgreSQL and Redis: TLS with a private CA, and a user without rights.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::world::{Ended, Running, eventually, free_port, run, wxgate};

const MASTER_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Creates a private CA and a certificate for 127.0.0.1, signed by this CA.
const CERTIFICATES: &str = "
set -e
cd \"$1\"
umask 077
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=private-ca -keyout ca.key -out ca.pem
openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr
printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > names
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
";

fn script(folder: &Path) -> PathBuf {
    let file = folder.join("certificates.sh");
    std::fs::write(&file, CERTIFICATES).expect("a script");
    file
}

fn command(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = wxgate(folder);
    command.args(arguments);
    command.env("WXGATE_MASTER_KEY", MASTER_KEY);
    command.envs(settings.iter().copied());
    command
}

fn ask(folder: &Path, arguments: &[&str], database_url: &str, redis_url: &str) -> Ended {
    let settings = [
        ("WXGATE_DATABASE_URL", database_url),
        ("WXGATE_REDIS_URL", redis_url),
    ];
    run(command(folder, arguments, &settings))
}

/// The finding of one check of `wxgate doctor`.
fn finding(report: &Value, check: &str) -> Value {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|one| one["check"] == check);
    found
        .unwrap_or_else(|| panic!("no {check}: {report}"))
        .clone()
}

#[test]
fn a_missing_right_to_create_tables_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let server = testkit::Postgres::start();
    let admin = server.create_database("closed");
    server.sql(&admin, "CREATE ROLE reader LOGIN");
    let url = admin.replace("postgres@", "reader@");
    let redis = "redis://127.0.0.1:1";

    let report = ask(folder.path(), &["doctor", "--json"], &url, redis);
    let report = report.expect(1).json();
    let found = finding(&report, "database writes");
    assert_eq!(found["status"], "failed", "{report}");
    let next = format!("{} {}", found["detail"], found["next"]);
    assert!(next.contains("GRANT USAGE, CREATE ON SCHEMA"), "{next}");

    let told = ask(folder.path(), &["migrate", "up"], &url, redis).expect(1);
    let told = told.stderr();
    assert!(
        told.contains("permission denied for schema public"),
        "{told}"
    );
    assert!(told.contains("GRANT USAGE, CREATE ON SCHEMA"), "{told}");
}

#[test]
fn reading_an_empty_database_creates_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let server = testkit::Postgres::start();
    let url = server.create_database("empty");
    let redis = "redis://127.0.0.1:1";
    ask(folder.path(), &["doctor", "--json"], &url, redis).expect(1);
    ask(folder.path(), &["migrate", "status"], &url, redis).expect(0);
    let count = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.sql(&url, count), "0");
}

#[test]
fn postgresql_with_a_private_ca_is_reached_and_a_wrong_ca_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    // The server's user, not the test's, runs the script in this folder.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let server = testkit::Postgres::start();
    let url = server.create_database("encrypted");
    let data = server.sql(&url, "SHOW data_directory");
    let program = format!("sh {} {data}", script(folder.path()).display());
    server.sql(&url, &format!("COPY (SELECT 1) TO PROGRAM '{program}'"));
    for setting in [
        "ssl = on",
        "ssl_cert_file = 'server.crt'",
        "ssl_key_file = 'server.key'",
    ] {
        server.sql(&url, &format!("ALTER SYSTEM SET {setting}"));
    }
    server.restart();
    let redis = "redis://127.0.0.1:1";
    let up = |parameters: &str| {
        let url = format!("{url}?{parameters}");
        ask(folder.path(), &["migrate", "up"], &url, redis)
    };
    up(&format!("sslmode=verify-full&sslrootcert={data}/ca.pem")).expect(0);
    for wrong in [
        "sslmode=verify-full",
        "sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    ] {
        let told = up(wrong).expect(1).stderr();
        assert!(told.contains("WXGATE_DATABASE_URL"), "{wrong}: {told}");
        assert!(told.contains("sslrootcert="), "{wrong}: {told}");
    }
}

#[test]
fn redis_with_a_private_ca_is_reached_by_its_setting_and_else_the_setting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = testkit::Postgres::start();
    let database = postgres.create_database("beside");
    let redis = testkit::Redis::start();
    let made = Command::new("sh")
        .args([script(folder.path()).as_os_str(), folder.path().as_os_str()])
        .output();
    assert!(
        made.is_ok_and(|made| made.status.success()),
        "openssl: run `make setup`"
    );
    let port = free_port();
    let at = folder.path().display();
    tell(
        redis.port(),
        &format!(
            "CONFIG SET tls-cert-file {at}/server.crt tls-key-file {at}/server.key tls-ca-cert-file {at}/ca.pem tls-auth-clients no tls-port {port}"
        ),
    );
    let url = format!("rediss://127.0.0.1:{port}");
    let ca = folder.path().join("ca.pem");
    let doctor = |url: &str, ca: Option<&Path>| {
        let mut settings = vec![
            ("WXGATE_DATABASE_URL", database.as_str()),
            ("WXGATE_REDIS_URL", url),
        ];
        settings.extend(
            ca.and_then(Path::to_str)
                .map(|ca| ("WXGATE_REDIS_CA_FILE", ca)),
        );
        run(command(folder.path(), &["doctor", "--json"], &settings))
    };
    let report = doctor(&url, Some(&ca)).json();
    assert_eq!(finding(&report, "redis")["status"], "ok", "{report}");
    let report = doctor(&url, None).json();
    let found = finding(&report, "redis");
    assert_eq!(found["status"], "failed", "{report}");
    assert!(
        found["detail"]
            .as_str()
            .is_some_and(|words| words.contains("WXGATE_REDIS_CA_FILE")),
        "{found}"
    );
    let open = format!("redis://127.0.0.1:{}", redis.port());
    let told = doctor(&open, Some(&ca)).expect(1).stderr();
    assert!(told.contains("rediss://"), "{told}");
}

#[tokio::test]
async fn a_pooler_that_shares_sessions_is_refused_and_a_session_pooler_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let server = testkit::Postgres::start();
    let direct = server.create_database("behind");
    let redis = testkit::Redis::start();
    for mode in ["transaction", "statement"] {
        let pooler = testkit::Pooler::start(&server, mode);
        for arguments in [
            &["migrate", "up"][..],
            &["serve", "--listen", "127.0.0.1:0"],
        ] {
            let told = ask(
                folder.path(),
                arguments,
                &pooler.url("behind"),
                &redis.url(),
            );
            let told = told.expect(1).stderr();
            assert!(told.contains("pool_mode = session"), "{mode}: {told}");
        }
        let report = ask(
            folder.path(),
            &["doctor", "--json"],
            &pooler.url("behind"),
            &redis.url(),
        );
        let found = report.expect(1).json().to_string();
        assert!(found.contains("pool_mode = session"), "{mode}: {found}");
    }
    let tables = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.sql(&direct, tables), "0");

    let pooler = testkit::Pooler::start(&server, "session");
    let url = pooler.url("behind");
    ask(folder.path(), &["migrate", "up"], &url, &redis.url()).expect(0);
    let report = ask(folder.path(), &["doctor", "--json"], &url, &redis.url()).json();
    for check in ["database", "database writes"] {
        assert_eq!(finding(&report, check)["status"], "ok", "{report}");
    }
    let listen = format!("127.0.0.1:{}", free_port());
    let urls = [
        ("WXGATE_DATABASE_URL", url.as_str()),
        ("WXGATE_REDIS_URL", &redis.url()),
    ];
    let serve = command(folder.path(), &["serve", "--listen", &listen], &urls);
    let mut gateway = Running::start(serve, folder.path().join("log"));
    gateway.wait_ready(&format!("http://{listen}")).await;
}

#[test]
fn a_redis_without_scripts_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = testkit::Postgres::start();
    let database = postgres.create_database("beside");
    let redis = testkit::Redis::start();
    let report = || {
        ask(
            folder.path(),
            &["doctor", "--json"],
            &database,
            &redis.url(),
        )
        .json()
    };
    assert_eq!(finding(&report(), "redis")["status"], "ok");
    tell(redis.port(), "ACL SETUSER default -@scripting");
    let found = finding(&report(), "redis");
    assert_eq!(found["status"], "failed", "{found}");
    assert!(
        found["detail"]
            .as_str()
            .is_some_and(|words| words.contains("scripts")),
        "{found}"
    );
}

#[tokio::test]
async fn a_redis_cluster_is_detected_unless_one_server_has_all_slots() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = testkit::Postgres::start();
    let database = postgres.create_database("beside");
    let redis = testkit::Redis::start_cluster();
    let found = || {
        let asked = ask(
            folder.path(),
            &["doctor", "--json"],
            &database,
            &redis.url(),
        );
        finding(&asked.json(), "redis")
    };
    for slots in ["0 8191", "8192 16382"] {
        let half = found();
        assert_eq!(half["status"], "failed", "{half}");
        let words = half.to_string();
        assert!(words.contains("16384 slots"), "{words}");
        tell(redis.port(), &format!("CLUSTER ADDSLOTSRANGE {slots}"));
    }
    tell(redis.port(), "CLUSTER ADDSLOTS 16383");
    // The cluster becomes complete a moment after the last slot is assigned.
    let whole = async || (found()["status"] == "ok").then_some(());
    eventually("Redis is taken", whole).await;
}

/// Sends a command to Redis and asserts the answer `+OK`.
fn tell(port: u16, words: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a Redis");
    stream
        .write_all(format!("{words}\r\n").as_bytes())
        .expect("a question");
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .expect("an answer");
    assert_eq!(answer.trim_end(), "+OK", "{words}");
}
