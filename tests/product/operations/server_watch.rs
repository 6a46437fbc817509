//! What operators learn of the servers beneath a gateway.

use coord::{Cell, Clock, Coord};

use crate::world::{Mode, World, eventually};

mod outages_and_recoveries_of_servers_are_logged {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::outages_and_recoveries_of_servers_are_logged().await;
    }
}

mod a_redis_missing_at_the_start_is_logged {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_redis_missing_at_the_start_is_logged().await;
    }
}

mod a_replica_with_another_public_url_logs_the_difference {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_replica_with_another_public_url_logs_the_difference().await;
    }
}

/// Everything that gateways in separate processes have logged.
fn logged(world: &World) -> String {
    let files = std::fs::read_dir(world.folder()).expect("the world's folder");
    let paths = files.map(|file| file.expect("a file").path());
    let logs = paths.filter(|path| path.extension().is_some_and(|end| end == "log"));
    logs.map(|log| std::fs::read_to_string(log).unwrap_or_default())
        .collect()
}

/// Waits until the metrics have this line, and the log these words.
async fn until_told(world: &World, metric: &str, words: &str) {
    eventually(&format!("{metric}: {words}"), || async {
        let metrics = world.anonymous().get("/metrics").await.text;
        let is_told = logged(world).contains(words);
        (is_told && metrics.lines().any(|line| line == metric)).then_some(())
    })
    .await;
}

async fn outages_and_recoveries_of_servers_are_logged() {
    let plan = World::plan(Mode::Production).breakable().own_process();
    let world = plan.log("info").start().await;
    until_told(&world, "wxgate_redis_up 1", "the gateway listens").await;
    world.redis().kill();
    until_told(&world, "wxgate_redis_up 0", "Redis does not answer").await;
    world.redis().restart();
    until_told(&world, "wxgate_redis_up 1", "Redis answers again").await;
    world.postgres().fail();
    until_told(
        &world,
        "wxgate_database_up 0",
        "the database takes no writes",
    )
    .await;
    world.postgres().restart();
    until_told(&world, "wxgate_database_up 1", "the database answers again").await;
    let log = logged(&world);
    for once in [
        "Redis does not answer",
        "Redis answers again",
        "the database takes no writes",
    ] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
}

async fn a_redis_missing_at_the_start_is_logged() {
    let mut world = World::plan(Mode::Production).log("info").start().await;
    world.redis().kill();
    world.add_replica(true).await;
    eventually("the start is told", || async {
        logged(&world)
            .contains("Redis does not answer")
            .then_some(())
    })
    .await;
    world.redis().restart();
}

async fn a_replica_with_another_public_url_logs_the_difference() {
    let mut world = World::plan(Mode::Production).log("warn").start().await;
    let other = Cell {
        value: b"https://elsewhere.example".to_vec(),
        generation: u64::try_from(i64::MAX).expect("it fits"),
    };
    let coord = Coord::redis(&world.redis().url(), Clock::system()).expect("a URL");
    let shown_until = coord.clock().now() + chrono::TimeDelta::hours(1);
    let shown = coord.cells().put("public-url", other, shown_until).await;
    assert_eq!(shown, Ok(true));
    world.add_replica(true).await;
    let log = logged(&world);
    for words in ["another WXGATE_PUBLIC_URL", "https://elsewhere.example"] {
        assert!(log.contains(words), "{log}");
    }
}
