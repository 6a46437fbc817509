//! What operators look at.

use serde_json::json;

use crate::world::{Mode, World, eventually, message};

const APP: &str = "wx00000000000000a1";

both_modes!(
    metrics_count_what_happens,
    health_and_readiness_are_reported,
    the_pages_of_the_api_load_nothing_from_other_hosts,
    the_document_names_every_operation_once,
);

async fn metrics_count_what_happens(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    for number in 0..3 {
        tenant
            .send_and_wait(APP, &message(&format!("o{number}")))
            .await;
    }
    let metrics = world.anonymous().get("/metrics").await;
    let kind = metrics
        .header("content-type")
        .unwrap_or_default()
        .to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(
        metrics.text.trim_end().ends_with("# EOF"),
        "OpenMetrics ends so"
    );
    let sum_of = |needle: &str| -> f64 {
        let lines = metrics
            .text
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(needle));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    };
    assert!(sum_of("accepted") >= 3.0, "{}", metrics.text);
    for secret in [APP, &tenant.id, crate::world::SECRET] {
        assert!(
            !metrics.text.contains(secret),
            "labels have few values and no secrets: {secret}"
        );
    }
}

async fn health_and_readiness_are_reported(mode: Mode) {
    let world = World::start(mode).await;
    let nobody = world.anonymous();
    assert_eq!(
        nobody.get("/healthz").await.expect(200),
        json!({"status": "ok"})
    );
    assert_eq!(nobody.get("/readyz").await.expect(200)["status"], "ready");
}

/// Only a database that runs as a separate server can be away.
mod a_gateway_without_its_database_says_so_and_recovers {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_gateway_without_its_database_says_so_and_recovers().await;
    }
}

async fn a_gateway_without_its_database_says_so_and_recovers() {
    let world = World::plan(Mode::Production).breakable().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    tenant.send_and_wait(APP, &message("o1")).await;
    let nobody = world.anonymous();

    world.postgres().kill();
    // A readiness result of the database is valid for one second.
    eventually("it is not ready", || async {
        let answer = nobody.get("/readyz").await;
        (answer.status != 200).then(|| answer.problem(503, "overloaded"))
    })
    .await;
    nobody.get("/healthz").await.expect(200);
    let path = format!("/v1/apps/{APP}/messages");
    let refused = tenant.client.post(&path, &message("o2")).await;
    assert!(
        !refused.text.contains("postgres"),
        "no innards in a problem: {refused:?}"
    );
    refused.problem(503, "overloaded");

    world.postgres().restart();
    eventually("it is ready again", || async {
        (nobody.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let sent = tenant.send_and_wait(APP, &message("o3")).await;
    assert_eq!(sent["status"], "sent", "{sent}");
}

async fn the_pages_of_the_api_load_nothing_from_other_hosts(mode: Mode) {
    let world = World::start(mode).await;
    let nobody = world.anonymous();
    let mut page = nobody.get("/docs").await;
    if page.status.is_redirection() {
        let location = page.header("location").expect("a Location").to_owned();
        page = nobody.get(&location).await;
    }
    assert_eq!(page.status, 200, "{page:?}");
    for (name, text) in [
        ("content-security-policy", "default-src 'none'"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
    ] {
        let value = page.header(name).unwrap_or_default();
        assert!(value.contains(text), "{name}: {value}");
    }
    let mut assets = 0;
    for part in page
        .text
        .split(['"', '\''])
        .filter(|part| !part.contains(' '))
    {
        assert!(
            !part.starts_with("http") && !part.starts_with("//"),
            "an external URL: {part}"
        );
        if std::path::Path::new(part)
            .extension()
            .is_some_and(|kind| kind == "js" || kind == "css")
        {
            let asset = nobody
                .get(&format!("/docs/{}", part.trim_start_matches("./")))
                .await;
            assert_eq!(asset.status, 200, "{asset:?}");
            assets += 1;
        }
    }
    assert!(assets >= 3, "{}", page.text);
}

async fn the_document_names_every_operation_once(mode: Mode) {
    let world = World::start(mode).await;
    let document = world.anonymous().get("/openapi.json").await;
    assert_eq!(document.header("content-type"), Some("application/json"));
    let document = document.expect(200);
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let mut ids = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().unwrap_or_default();
            assert!(!id.is_empty(), "{method} {path} has no operationId");
            assert!(
                operation["summary"].is_string(),
                "{method} {path} has no summary"
            );
            ids.push(id);
        }
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an operationId is used twice");
}
