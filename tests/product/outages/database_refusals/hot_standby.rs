//! The name of the database leads to a hot standby for a while: the standby answers reads with old data, and takes no
//! write.

use super::Scene;

mod a_database_name_that_led_to_a_standby_loses_no_answer {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn production() {
        super::a_database_name_that_led_to_a_standby_loses_no_answer().await;
    }
}

async fn a_database_name_that_led_to_a_standby_loses_no_answer() {
    let mut scene = Scene::start(true).await;
    let standby = scene.world.postgres().standby();
    // The backup took some time, so the first messages have ended. The scene sends new ones, which are in flight.
    scene.world.pass(std::time::Duration::from_secs(1));
    for message in &scene.messages {
        scene.replicas[0].wait_ended(message).await;
    }
    scene.messages = scene.send().await;
    scene.world.switch().lead_to(standby.port());
    scene.is_refused().await;
    scene.outlasts_the_leases().await;
    scene.world.switch().lead_to(scene.world.postgres().port());
    scene.heals().await;
}
