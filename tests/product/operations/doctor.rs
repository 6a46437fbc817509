//! `wxgate doctor` on healthy and on broken gateways.

use std::os::unix::fs::PermissionsExt;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use simulator::Effect;

use crate::world::{Ended, MASTER_KEY, Mode, World, message, run};

const APP: &str = "wx00000000000000a1";

both_modes!(
    a_healthy_gateway_passes_every_check,
    each_defect_is_reported_with_its_remedy,
    a_cause_is_reported_and_not_guessed,
    the_doctor_changes_nothing,
);

/// The finding of one check.
fn finding<'a>(report: &'a Value, check: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|one| one["check"] == check);
    found.unwrap_or_else(|| panic!("no {check}: {report}"))
}

fn examine(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = world.wxgate(&["doctor"]);
    command.args(arguments).envs(variables.iter().copied());
    run(command)
}

async fn a_healthy_gateway_passes_every_check(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let report = examine(&world, &["--json"], &[]).expect(0).json();
    for check in [
        "settings",
        "database",
        "schema",
        "master key",
        "wechat",
        "clock",
        "apps",
    ] {
        assert_eq!(finding(&report, check)["status"], "ok", "{report}");
    }
    let wanted = if mode == Mode::Production {
        "ok"
    } else {
        "skipped"
    };
    for check in ["redis", "database clock"] {
        assert_eq!(finding(&report, check)["status"], wanted, "{report}");
    }
    let text = examine(&world, &[], &[]).expect(0).stdout();
    assert!(
        text.lines().count() > 10 && text.contains("1 registered"),
        "{text}"
    );
}

async fn each_defect_is_reported_with_its_remedy(mode: Mode) {
    let mut world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let suspended = Effect::Errcode {
        errcode: 50002,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(simulator::Fault::next(1, suspended).for_app(APP));
    let sent = tenant.send(APP, &message("o1")).await;
    tenant.wait_attempt(&sent, "app_blocked").await;
    world.wechat_goes_away().await;
    // The database is encrypted with another master key.
    let other = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwg=";
    let ended = examine(&world, &["--json"], &[("WXGATE_MASTER_KEY", other)]);
    let report = ended.expect(1).json();
    assert_eq!(report["status"], "failed");
    for check in ["master key", "wechat"] {
        let found = finding(&report, check);
        assert_eq!(found["status"], "failed", "{report}");
        let words = format!("{} {}", found["detail"], found["next"]);
        assert!(words.contains("WXGATE_"), "{words}");
    }
    assert_eq!(finding(&report, "apps")["status"], "skipped", "{report}");
    world.wechat_comes_back().await;
    let report = examine(&world, &["--json"], &[]).expect(0).json();
    let app = finding(&report, "app");
    assert_eq!(app["status"], "warning", "{report}");
    assert!(
        app["next"]
            .as_str()
            .is_some_and(|next| next.contains("wxgate app verify"))
    );
    let nowhere = match mode {
        Mode::Embedded => ("WXGATE_DATABASE_URL", "sqlite://nowhere/wxgate.db"),
        Mode::Production => ("WXGATE_REDIS_URL", "redis://127.0.0.1:1"),
    };
    let ended = examine(&world, &["--json"], &[nowhere]);
    let (check, status, code) = match mode {
        Mode::Embedded => ("database", "warning", 0),
        Mode::Production => ("redis", "failed", 1),
    };
    let report = ended.expect(code).json();
    assert_eq!(finding(&report, check)["status"], status, "{report}");
    if mode == Mode::Production {
        let why = finding(&report, check)["detail"].as_str().expect("why");
        assert!(why.contains("refused"), "{why}");
    }
}

async fn a_cause_is_reported_and_not_guessed(mode: Mode) {
    let world = World::start(mode).await;
    let file = world.folder().join("open.key");
    std::fs::write(&file, BASE64_STANDARD.encode(MASTER_KEY)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let mut command = world.wxgate(&["doctor", "--json"]);
    command
        .env_remove("WXGATE_MASTER_KEY")
        .env("WXGATE_MASTER_KEY_FILE", &file)
        .env("WXGATE_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let report = run(command).expect(0).json();
    for (check, words) in [
        ("master key", "chmod 600"),
        ("traces", "WXGATE_OTLP_ENDPOINT"),
    ] {
        let found = finding(&report, check);
        assert_eq!(found["status"], "warning", "{report}");
        let next = found["next"].as_str().expect("advice");
        assert!(next.contains(words), "{report}");
    }
    if mode == Mode::Embedded {
        return;
    }
    let command = world.wxgate(&[]);
    let mut told = command.get_envs();
    let url = told.find(|(name, _)| *name == "WXGATE_DATABASE_URL");
    let url = url.and_then(|(_, url)| url?.to_str()).expect("a URL");
    let (server, _) = url.rsplit_once('/').expect("a database");
    for (url, words) in [
        (
            format!("{server}/nowhere"),
            "database \"nowhere\" does not exist",
        ),
        ("postgres://127.0.0.1:1/wxgate".to_owned(), "refused"),
    ] {
        let ended = examine(&world, &["--json"], &[("WXGATE_DATABASE_URL", &url)]);
        let report = ended.expect(1).json();
        let found = finding(&report, "database")["detail"]
            .as_str()
            .expect("words");
        assert!(found.contains(words) && !found.contains("pool"), "{found}");
    }
}

async fn the_doctor_changes_nothing(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let path = format!("/v1/apps/{APP}");
    let before = tenant.client.get(&path).await.expect(200);
    let calls = world.wechat().app_stats(APP).calls;
    examine(&world, &[], &[]).expect(0);
    assert_eq!(tenant.client.get(&path).await.expect(200), before);
    assert_eq!(world.wechat().app_stats(APP).calls, calls);
}
