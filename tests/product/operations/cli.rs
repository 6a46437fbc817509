//! The command line of the program: the real binary, in a folder of its own.

use std::{io::Write, process::Command};

use serde_json::{Value, json};

use crate::world::{Ended, Mode, SECRET, TEMPLATE, World, id, message, message_with, run, wxgate};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_tenant_is_onboarded_and_a_message_sent,
    message_push_settings_come_with_the_secret,
    a_replaced_secret_keeps_waiting_messages,
    a_refusal_of_wechat_is_reported,
    keys_are_listed_and_revoked,
    migrations_are_listed,
);

/// Runs a command with this text on standard input.
fn run_with_input(mut command: Command, input: &str) -> Ended {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    command.stdin(reader);
    writer.write_all(input.as_bytes()).expect("room in a pipe");
    drop(writer);
    run(command)
}

fn onboard(world: &World) -> String {
    let created = run(world.wxgate(&["tenant", "create", "Acme", "--json"]))
        .expect(0)
        .json();
    let tenant = id(&created).to_owned();
    assert!(tenant.starts_with("ten_"));
    let add = [
        "app",
        "add",
        "--tenant",
        &tenant,
        "--appid",
        APP,
        "--secret-stdin",
        "--json",
    ];
    let app = run_with_input(world.wxgate(&add), &format!("{SECRET}\n"))
        .expect(0)
        .json();
    assert_eq!(
        (&app["appid"], &app["tenant_id"]),
        (&json!(APP), &json!(tenant))
    );
    assert!(app["verified_at"].is_string(), "{app}");
    tenant
}

async fn message_push_settings_come_with_the_secret(mode: Mode) {
    const TOKEN: &str = "gatewayTestToken01";
    const AES_KEY: &str = "q7Xc2Vn8Lk4Rz1Tb6Ym9Wd3Hs5Jf0Gp7Ua2Ke4Qi8Or";
    let world = World::start(mode).await;
    let tenant = onboard(&world);
    let add = |appid: &str, input: &str| {
        let add = ["app", "add", "--tenant", &tenant, "--appid", appid];
        let stdin = ["--secret-stdin", "--callback-stdin", "--json"];
        run_with_input(world.wxgate(&[&add[..], &stdin].concat()), input)
    };
    let both = format!("{SECRET}\n{TOKEN}\n{AES_KEY}\n");
    let added = add("wx00000000000000b2", &both).expect(0).json();
    assert_eq!(added["has_callback"], true);
    let plain = add("wx00000000000000c3", &format!("{SECRET}\n{TOKEN}\n"));
    assert_eq!(plain.expect(0).json()["has_callback"], true);
    for (appid, aes_key_set) in [("wx00000000000000b2", true), ("wx00000000000000c3", false)] {
        let shown = world.operator().get(&format!("/v1/apps/{appid}")).await;
        assert!(!shown.text.contains(TOKEN) && !shown.text.contains(AES_KEY));
        let callback = shown.expect(200)["callback"].clone();
        assert_eq!(
            (&callback["token_set"], &callback["aes_key_set"]),
            (&json!(true), &json!(aes_key_set))
        );
    }
    let missing = add("wx00000000000000d4", &format!("{SECRET}\n"));
    let told = missing.expect(2).stderr();
    assert!(told.contains("Token"), "{told}");
    let wrong = add("wx00000000000000d4", &format!("{SECRET}\n{TOKEN}\nshort\n"));
    let told = wrong.expect(1).stderr();
    assert!(told.contains("callback_aes_key"), "{told}");
}

async fn a_tenant_is_onboarded_and_a_message_sent(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = onboard(&world);
    let key = [
        "key",
        "create",
        "--tenant",
        &tenant,
        "--scope",
        "messages:send,messages:read",
        "--json",
    ];
    let key = run(world.wxgate(&key)).expect(0).json();
    assert_eq!(key["scopes"], json!(["messages:send", "messages:read"]));

    let send = [
        "send",
        "--appid",
        APP,
        "--to",
        "o1",
        "--template",
        TEMPLATE,
        "--data",
        "thing1=Coffee=black",
        "--data",
        "number2=2",
    ];
    let text = run(world.wxgate(&send)).expect(0).stdout();
    assert!(text.contains("sent"), "{text}");
    let message = run(world.wxgate(&[&send[..], &["--json"]].concat()))
        .expect(0)
        .json();
    assert_eq!(message["status"], "sent");
    let body = world.wechat().sent(APP)[0].body.clone().expect("a body");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body["data"],
        json!({"thing1": {"value": "Coffee=black"}, "number2": {"value": "2"}})
    );

    let client = world.anonymous().with_key(crate::world::Key::of(&key));
    let read = client
        .get(&format!("/v1/messages/{}", id(&message)))
        .await
        .expect(200);
    assert_eq!(read, message, "the program prints what the API answers");
}

async fn a_replaced_secret_keeps_waiting_messages(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let later = (world.now() + std::time::Duration::from_hours(1)).to_rfc3339();
    let later = message_with("o1", json!({"send_at": later}));
    let waiting = tenant.send(APP, &later).await;
    world.wechat().change_app(APP, |app| {
        app.secret = Some("0123456789abcdef0123456789abcdef".into());
    });
    let set = |secret: &str| {
        let set = ["app", "set-secret", "--appid", APP, "--secret-stdin"];
        run_with_input(world.wxgate(&set), &format!("{secret}\n"))
    };
    let refused = set(SECRET).expect(1).stderr();
    assert!(refused.contains("wxgate app set-secret"), "{refused}");
    let shown = set("0123456789abcdef0123456789abcdef").expect(0).stdout();
    assert!(shown.contains(APP), "{shown}");
    tenant.send_and_wait(APP, &message("o2")).await;
    let path = format!("/v1/messages/{}", id(&waiting));
    let still = tenant.client.get(&path).await.expect(200);
    assert_eq!(still["status"], "scheduled");
}

async fn a_refusal_of_wechat_is_reported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = onboard(&world);
    world
        .wechat()
        .change_app(APP, |app| app.grants = simulator::GrantRule::Counted);
    let send = [
        "send",
        "--appid",
        APP,
        "--to",
        "o1",
        "--template",
        TEMPLATE,
        "--data",
        "thing1=x",
    ];
    let refused = run(world.wxgate(&send)).expect(1).stderr();
    assert!(
        refused.contains("43101") && refused.contains("requestSubscribeMessage"),
        "{refused}"
    );
    let json = run(world.wxgate(&[&send[..], &["--json"]].concat()))
        .expect(1)
        .stderr();
    let json: Value = serde_json::from_str(&json).expect("failures are JSON too");
    assert!(
        json["error"]["code"].is_string() && json["error"]["message"].is_string(),
        "{json}"
    );

    world.wechat().change_app("wx00000000000000b2", |app| {
        app.secret = Some("another".into());
    });
    let add = [
        "app",
        "add",
        "--tenant",
        &tenant,
        "--appid",
        "wx00000000000000b2",
        "--secret-stdin",
    ];
    let refused = run_with_input(world.wxgate(&add), SECRET)
        .expect(1)
        .stderr();
    assert!(
        refused.contains("40125") && !refused.contains(SECRET),
        "{refused}"
    );
    let json = run_with_input(world.wxgate(&[&add[..], &["--json"]].concat()), SECRET);
    let json: Value =
        serde_json::from_str(&json.expect(1).stderr()).expect("JSON and nothing else");
    assert_eq!(json["error"]["code"], "wechat_rejected", "{json}");
    let wrong_value = [
        "send",
        "--appid",
        APP,
        "--to",
        "o1",
        "--template",
        TEMPLATE,
        "--data",
        "number1=many",
    ];
    let refused = run(world.wxgate(&wrong_value)).expect(1).stderr();
    assert!(refused.contains("data/number1/value"), "{refused}");
}

async fn keys_are_listed_and_revoked(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = onboard(&world);
    let create = [
        "key",
        "create",
        "--tenant",
        &tenant,
        "--scope",
        "apps:read",
        "--name",
        "reader",
        "--json",
    ];
    let key = run(world.wxgate(&create)).expect(0).json();
    let secret = key["client_secret"].as_str().expect("a secret").to_owned();
    let list = ["key", "list", "--tenant", &tenant, "--json"];
    let listed = run(world.wxgate(&list)).expect(0);
    assert!(!listed.stdout().contains(&secret), "a secret is shown once");
    assert_eq!(listed.json()["data"][0]["name"], "reader");

    let client_id = key["client_id"].as_str().expect("an id");
    run(world.wxgate(&["key", "revoke", client_id])).expect(0);
    let listed = run(world.wxgate(&list)).expect(0).json();
    assert!(listed["data"][0]["revoked_at"].is_string(), "{listed}");
    let client = world.anonymous().with_key(crate::world::Key::of(&key));
    crate::world::eventually("the key is refused", || async {
        (client.fetch_token(None).await.status == 401).then_some(())
    })
    .await;

    let suspended = run(world.wxgate(&["tenant", "suspend", &tenant, "--json"]))
        .expect(0)
        .json();
    assert_eq!(suspended["status"], "suspended");
    let resumed = run(world.wxgate(&["tenant", "resume", &tenant, "--json"]))
        .expect(0)
        .json();
    assert_eq!(resumed["status"], "active");
}

async fn migrations_are_listed(mode: Mode) {
    let world = World::start(mode).await;
    let status = run(world.wxgate(&["migrate", "status", "--json"]))
        .expect(0)
        .json();
    let migrations = status["data"].as_array().expect("data");
    assert!(
        !migrations.is_empty()
            && migrations
                .iter()
                .all(|migration| migration["applied"] == true),
        "{status}"
    );
    run(world.wxgate(&["serve", "--no-migrate", "--listen", "203.0.113.1:1"])).expect(1);
}

/// A command without any setting, in a new folder.
fn program(arguments: &[&str]) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = wxgate(folder.path());
    command.args(arguments);
    (folder, command)
}

#[test]
fn settings_are_shown_without_secrets() {
    let (_folder, mut command) = program(&["config", "--json"]);
    command.env("WXGATE_DATABASE_URL", "postgres://wx:s3cret-1@db/wxgate");
    command.env("WXGATE_REDIS_URL", "redis://:s3cret-2@cache");
    command.env(
        "WXGATE_MASTER_KEY",
        "czNjcmV0LTMtczNjcmV0LTMtczNjcmV0LTMtczNjcmU=",
    );
    let ended = run(command).expect(0);
    let all = ended.stdout() + &ended.stderr();
    for secret in ["s3cret", "czNjcmV0"] {
        assert!(!all.contains(secret), "{all}");
    }
    assert!(all.contains("postgres://wx:***@db/wxgate"), "{all}");
    assert_eq!(ended.json()["mode"], "production");
}

#[test]
fn the_environment_beats_the_file_and_flags_beat_both() {
    let listen = |command: Command| {
        let shown = run(command).expect(0).json();
        let settings = shown["settings"].as_array().expect("settings").clone();
        let found = settings
            .into_iter()
            .find(|setting| setting["name"] == "listen")
            .expect("listen");
        found["value"].as_str().expect("a value").to_owned()
    };
    let (folder, _) = program(&[]);
    std::fs::write(
        folder.path().join("wxgate.toml"),
        "listen = \"127.0.0.1:1111\"\n",
    )
    .unwrap();
    let asked = |more: &[&str]| {
        let mut command = wxgate(folder.path());
        command
            .args(["config", "--json", "--config", "wxgate.toml"])
            .args(more);
        command
    };
    assert_eq!(listen(asked(&[])), "127.0.0.1:1111");
    let mut environment = asked(&[]);
    environment.env("WXGATE_LISTEN", "127.0.0.1:2222");
    assert_eq!(listen(environment), "127.0.0.1:2222");
    let mut flag = asked(&["--listen", "127.0.0.1:3333"]);
    flag.env("WXGATE_LISTEN", "127.0.0.1:2222");
    assert_eq!(listen(flag), "127.0.0.1:3333");
}

#[test]
fn an_unsupported_pair_of_urls_is_refused() {
    for (database, redis, advice) in [
        (Some("postgres://db/wxgate"), None, "WXGATE_REDIS_URL"),
        (None, Some("redis://cache"), "WXGATE_REDIS_URL"),
        (Some("mysql://db/wxgate"), None, "WXGATE_DATABASE_URL"),
    ] {
        let (_folder, mut command) = program(&["serve"]);
        command.envs(database.map(|url| ("WXGATE_DATABASE_URL", url)));
        command.envs(redis.map(|url| ("WXGATE_REDIS_URL", url)));
        let refused = run(command).expect(1).stderr();
        assert!(
            refused.contains(advice),
            "{database:?} with {redis:?}: {refused}"
        );
    }
}

#[test]
fn a_server_without_a_master_key_does_not_start_on_postgresql() {
    let (_folder, mut command) = program(&["serve"]);
    command
        .env("WXGATE_DATABASE_URL", "postgres://127.0.0.1:9/wxgate")
        .env("WXGATE_REDIS_URL", "redis://127.0.0.1:9");
    let refused = run(command).expect(1).stderr();
    assert!(refused.contains("WXGATE_MASTER_KEY"), "{refused}");
}

#[test]
fn wrong_usage_differs_from_failure() {
    for wrong in [
        &["fly"][..],
        &["tenant", "create"],
        &["key", "create", "--scope", "apps:read"],
        &["send", "--to"],
    ] {
        let (_folder, command) = program(wrong);
        run(command).expect(2);
    }
    for fine in [&["--help"][..], &["--version"], &["help", "key"]] {
        let (_folder, command) = program(fine);
        run(command).expect(0);
    }
    let (_folder, unknown) = program(&["tenant", "show", "ten_01jq2xv1cde8sbw7mv9v6a5kzq"]);
    run(unknown).expect(1);
}

#[test]
fn the_documents_are_those_in_the_repository() {
    for (arguments, name) in [
        (&["openapi"][..], "openapi.json"),
        (&["openapi", "--openapi-version", "3.0"], "openapi-3.0.json"),
        (&["openapi", "--part", "drop-in"], "drop-in.json"),
    ] {
        let (_folder, command) = program(arguments);
        let printed = run(command).expect(0).stdout();
        let kept = format!("{}/../openapi/{name}", env!("CARGO_MANIFEST_DIR"));
        let kept = std::fs::read_to_string(kept).unwrap_or_default();
        assert!(
            printed == kept,
            "openapi/{name} is not what the code says: run `make openapi`"
        );
    }
}
