//! Posting callbacks, with WeChat's repetitions.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CallbackRequest, PushEvent};
use crate::app::SimulatedApp;
use crate::world::World;

/// The time for which WeChat waits for an answer; `TRIES` is how often WeChat posts a callback.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
/// The greatest number of callbacks in flight.
const AT_ONCE: usize = 64;

/// An event to post for an account.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) app: Arc<SimulatedApp>,
    pub(crate) event: PushEvent,
}

/// Posts the incoming events until `stop` is cancelled.
pub(crate) async fn run(
    world: Arc<World>,
    mut jobs: UnboundedReceiver<Job>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let client = reqwest::Client::builder()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .no_proxy()
        .build()
        .map_err(std::io::Error::other)?;
    let mut posts = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = posts.join_next() => {}
            Some(job) = jobs.recv(), if posts.len() < AT_ONCE => match world.letter(&job.app, &job.event) {
                Ok(letter) => {
                    posts.spawn(post(client.clone(), letter));
                }
                Err(error) => tracing::warn!(appid = %job.app.appid, %error, "nothing is pushed"),
            },
        }
    }
}

/// Posts a callback, up to [`TRIES`] times, until the answer is `success` or empty.
async fn post(client: reqwest::Client, letter: CallbackRequest) {
    let url = format!("{}?{}", letter.url, letter.query);
    for _ in 0..TRIES {
        let request = client
            .post(&url)
            .header("content-type", letter.content_type)
            .body(letter.body.clone());
        let Ok(answer) = request.send().await else {
            continue;
        };
        if answer.status().is_success()
            && let Ok(text) = answer.text().await
            && (text == "success" || text.is_empty())
        {
            return;
        }
    }
    tracing::warn!(url = letter.url, "a push was not taken, and is given up");
}
