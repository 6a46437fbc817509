//! A full disk: the embedded gateway runs on a small file system of its own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::future::join_all;
use serde_json::json;

use super::{APP, LATENCY, metric};
use crate::world::{
    MASTER_KEY, Mode, Running, Tenant, World, eventually, free_port, message_with, until, wxgate,
};

mod a_full_disk_loses_no_answer {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        super::a_full_disk_loses_no_answer().await;
    }
}

mod a_full_disk_shows_before_a_message_comes {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        super::a_full_disk_shows_before_a_message_comes().await;
    }
}

/// The program with the database of `world`, on a disk of 16 MiB that only the program and its children see.
fn serve(world: &World, address: &str) -> Command {
    let script =
        "mkdir disk && mount -t tmpfs -o size=16m tmpfs disk && cp wxgate.db* disk && exec \"$@\"";
    let plain = wxgate(world.folder());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]);
    command
        .arg(plain.get_program())
        .args(["serve", "--listen", address]);
    command.current_dir(world.folder()).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
        .env("WXGATE_DATABASE_URL", "sqlite://disk/wxgate.db")
        .env("WXGATE_MASTER_KEY", BASE64_STANDARD.encode(MASTER_KEY))
        .env("WXGATE_WECHAT_BASE_URL", world.wechat_url())
        .env(
            "WXGATE_WECHAT_TIMEOUT",
            format!("{}s", (LATENCY * 4).as_secs()),
        )
        .env("WXGATE_PUBLIC_URL", "http://wxgate.test");
    command
}

/// Writes until the disk takes nothing more.
fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).expect("a file");
    for size in [65536, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

/// The program on the small disk, and a tenant with an app there.
async fn start(world: &mut World) -> (Running, Tenant) {
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    world.stop_replica().await;
    let address = format!("127.0.0.1:{}", free_port());
    let log = world.folder().join("small.log");
    let mut running = Running::start(serve(world, &address), log);
    let url = format!("http://{address}");
    running.wait_ready(&url).await;
    let client = tenant.client.at(&url);
    (running, Tenant { client, ..tenant })
}

/// A file on the disk of the program, as a path of the test.
fn ballast(world: &World, running: &Running) -> PathBuf {
    let root = format!("/proc/{}/root", running.id());
    let inside = world.folder().strip_prefix("/").expect("an absolute path");
    Path::new(&root).join(inside).join("disk/ballast")
}

async fn wait_for_readiness(tenant: &Tenant, status: u16, up: usize) {
    eventually(&format!("/readyz answers {status}"), || async {
        let ready = tenant.client.get("/readyz").await;
        let metric = metric(tenant, "wxgate_database_up").await;
        (ready.status == status && metric == Some(up)).then_some(())
    })
    .await;
}

async fn a_full_disk_shows_before_a_message_comes() {
    let mut world = World::start(Mode::Embedded).await;
    let (mut running, tenant) = start(&mut world).await;
    let ballast = ballast(&world, &running);
    fill(&ballast);
    wait_for_readiness(&tenant, 503, 0).await;
    fs::remove_file(&ballast).expect("the ballast");
    wait_for_readiness(&tenant, 200, 1).await;
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
}

async fn a_full_disk_loses_no_answer() {
    let mut world = World::start(Mode::Embedded).await;
    let (mut running, tenant) = start(&mut world).await;
    let first = tenant
        .send_and_wait(APP, &message_with("first", json!({})))
        .await;
    assert_eq!(first["status"], "sent", "{first}");

    world.wechat().set_latency(LATENCY);
    let posts = (0..20).map(|number| {
        let wanted = if number % 2 == 0 { "hold" } else { "retry" };
        let message = message_with(&format!("o{number}"), json!({"on_uncertain": wanted}));
        let tenant = &tenant;
        async move { tenant.send(APP, &message).await }
    });
    let messages = join_all(posts).await;
    until("WeChat has them", || world.wechat().sent(APP).len() == 21).await;
    let ballast = ballast(&world, &running);
    fill(&ballast);

    let path = format!("/v1/apps/{APP}/messages");
    eventually("a caller hears 503", || async {
        let fresh = message_with("nobody", json!({}));
        let answer = tenant.client.post(&path, &fresh).await;
        let is_refused = answer.status != 202;
        is_refused.then(|| answer.problem(503, "overloaded"))
    })
    .await;
    eventually(
        "it is not ready, its metrics say so, and the answers wait",
        || async {
            let ready = tenant.client.get("/readyz").await;
            let up = metric(&tenant, "wxgate_database_up").await;
            let waiting = metric(&tenant, "wxgate_answers_waiting").await;
            (ready.status == 503 && up == Some(0) && waiting >= Some(20)).then_some(())
        },
    )
    .await;
    let read = tenant.read(&messages[0]).await;
    assert_eq!(read["status"], "sending", "reading goes on: {read}");

    world.wechat().set_latency(Duration::ZERO);
    fs::remove_file(&ballast).expect("the ballast");
    for message in &messages {
        let ended = tenant.wait_ended(message).await;
        assert_eq!(ended["status"], "sent", "{ended}");
        assert_eq!(
            ended["attempts"].as_array().map(Vec::len),
            Some(1),
            "{ended}"
        );
    }
    wait_for_readiness(&tenant, 200, 1).await;
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
}
