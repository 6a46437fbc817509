//! `wxgate dev`: the whole product in an empty folder, without any installed service.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::world::{Client, Key, Running, Time, eventually, free_port, run, wxgate};

/// The longest acceptable wait of a new user for the first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);

fn dev(folder: &Path, port: u16, more: &[&str]) -> Command {
    let mut command = wxgate(folder);
    command
        .args([
            "dev",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--simulator-port",
            "0",
        ])
        .args(more);
    command
}

/// Starts `wxgate dev` and waits for `last_words`. Returns the process and the output.
async fn start(
    folder: &Path,
    port: u16,
    more: &[&str],
    name: &str,
    last_words: &str,
) -> (Running, String) {
    let running = Running::start(dev(folder, port, more), folder.join(name));
    let said = eventually("wxgate dev has said everything", || async {
        let said = running.said();
        assert!(!said.contains("error:"), "{said}");
        said.contains(last_words).then_some(said)
    })
    .await;
    (running, said)
}

#[tokio::test]
async fn dev_shows_two_messages_and_commands_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let (port, started) = (free_port(), Instant::now());
    let (mut running, said) = start(folder.path(), port, &[], "first.log", "Ctrl-C").await;
    assert!(started.elapsed() < FIRST_MESSAGE, "{:?}", started.elapsed());

    let sent = said
        .lines()
        .filter(|line| line.contains(" is sent: WeChat answered 0 ok"))
        .count();
    assert_eq!(sent, 2, "{said}");
    for place in ["/docs", "/console", "/v1"] {
        assert!(
            said.contains(&format!("http://127.0.0.1:{port}{place}")),
            "{place}: {said}"
        );
    }
    let lines = said
        .lines()
        .skip_while(|line| !line.starts_with("TOKEN="))
        .take_while(|line| !line.is_empty());
    let script: Vec<&str> = lines.collect();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script.join("\n")])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{script:?}\n{printed}\n{complaint}"
    );
    let last: Value =
        serde_json::from_str(printed.lines().last().unwrap_or_default()).expect(&printed);
    assert_eq!(last["status"], "sent", "{printed}");

    let database = folder.path().join("wxgate-data");
    let secrets: Vec<_> = std::fs::read_dir(&database)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    for file in secrets
        .iter()
        .filter(|file| !file.to_string_lossy().contains("wxgate.db"))
    {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for its owner alone", file.display());
    }
    assert_eq!(running.terminate(), Some(0), "{}", running.said());
}

#[tokio::test]
async fn dev_keeps_its_data_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut keys = Vec::new();
    for round in ["first.log", "second.log"] {
        let (mut running, said) = start(folder.path(), port, &["--json"], round, "curl").await;
        let line = said
            .lines()
            .find(|line| line.starts_with('{') && line.contains("curl"))
            .expect("a line of JSON");
        let told: Value = serde_json::from_str(line).expect("JSON");
        assert!(
            told["messages"]
                .as_array()
                .is_some_and(|messages| messages.iter().all(|message| message["status"] == "sent"))
        );
        let client = Client::anonymous(&format!("http://127.0.0.1:{port}"), &Time::default());
        let client = client.with_key(Key::of(&told["tenant_key"]));
        let appid = told["appid"].as_str().expect("an appid");
        let messages = client
            .get(&format!("/v1/apps/{appid}/messages"))
            .await
            .expect(200);
        let count = messages["data"].as_array().expect("data").len();
        let listed = eventually("the demo's templates", || async {
            let path = format!("/v1/apps/{appid}/templates");
            let page = client.get(&path).await.expect(200);
            page["synced_at"].is_string().then_some(page)
        });
        let listed = listed.await;
        let templates = listed["data"].as_array().expect("data");
        for message in told["messages"].as_array().into_iter().flatten() {
            let template = templates
                .iter()
                .find(|template| template["template_id"] == message["template_id"]);
            let keys = template.and_then(|template| template["keys"].as_array());
            let keys = keys.unwrap_or_else(|| panic!("{message} has its template: {listed}"));
            let data = message["data"].as_object().expect("data");
            assert_eq!(keys.len(), data.len(), "{message}: {listed}");
        }
        keys.push((told["tenant_key"].clone(), count));
        assert_eq!(running.terminate(), Some(0), "{}", running.said());
    }
    assert_eq!(keys[0].0, keys[1].0, "the same key");
    assert_eq!(
        (keys[0].1, keys[1].1),
        (2, 4),
        "two messages each start, and the old ones are kept"
    );
}

#[test]
fn an_occupied_port_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = run(dev(folder.path(), port, &[])).expect(1).stderr();
    assert!(
        refused.contains(&port.to_string()) && refused.contains("WXGATE_LISTEN"),
        "{refused}"
    );
}

#[test]
fn a_read_only_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    // A file stands in the place of the folder: root may write to every existing folder.
    std::fs::write(folder.path().join("wxgate-data"), "in the way").unwrap();
    let refused = run(dev(folder.path(), free_port(), &[])).expect(1).stderr();
    assert!(
        refused.contains("wxgate-data") && refused.contains("WXGATE_DATABASE_URL"),
        "{refused}"
    );
}

/// Each scenario's name says how the simulated WeChat answers a token call or a send.
#[tokio::test]
async fn a_simulator_follows_the_chosen_scenario() {
    const TOKEN: &str =
        "/cgi-bin/token?grant_type=client_credential&appid=wx0a1b2c3d4e5f6789&secret=any";
    const SEND: &str = "/cgi-bin/message/subscribe/send?access_token=";
    for (scenario, path, told) in [
        ("address-refused", TOKEN, "\"errcode\":40164"),
        ("down", TOKEN, "502"),
        ("quota-spent", SEND, "\"errcode\":45009"),
        ("lost-answers", SEND, "reset"),
        ("stray-refusals", SEND, "\"errcode\":40001"),
        ("busy", SEND, "\"errcode\":-1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = wxgate(folder.path());
        let port = port.to_string();
        command.args(["simulate", "--port", &port, "--scenario", scenario]);
        let running = Running::start(command, folder.path().join("simulate.log"));
        eventually("the simulator is there", || async {
            running.said().contains("/_sim/").then_some(())
        })
        .await;
        let url = format!("http://127.0.0.1:{port}");
        let patience = Duration::from_secs(10);
        let http = reqwest::Client::builder().timeout(patience);
        let http = http.connect_timeout(patience).build().unwrap();
        let page = http.get(format!("{url}/_sim/")).send().await.unwrap();
        let page = page.text().await.unwrap();
        assert!(page.contains("POST /_sim/faults"), "{page}");
        let token = http.get(format!("{url}{TOKEN}")).send().await.unwrap();
        let token: Value = token.json().await.unwrap_or_default();
        let token = token["access_token"].as_str().unwrap_or_default();
        let tried = eventually(scenario, || async {
            let request = if path == SEND {
                http.post(format!("{url}{path}{token}")).body("{}")
            } else {
                http.get(format!("{url}{path}"))
            };
            let answer = match request.send().await {
                Ok(answer) => {
                    let status = answer.status();
                    format!("{status} {}", answer.text().await.unwrap_or_default())
                }
                Err(_) => "reset".to_owned(),
            };
            answer.contains(told).then_some(answer)
        });
        tried.await;
    }
}
