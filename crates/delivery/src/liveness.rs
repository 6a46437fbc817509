//! The liveness watch: notices a task of the engine that ended before the engine was stopped.

use std::sync::{Arc, OnceLock};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Watches the engine's tasks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LivenessWatch {
    tasks: TaskTracker,
    stop: CancellationToken,
    dead: Arc<OnceLock<&'static str>>,
}

/// Dropped at the end of its task, however the task ends.
struct Watch {
    name: &'static str,
    liveness: LivenessWatch,
}

impl LivenessWatch {
    pub(crate) fn new(tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self {
            tasks,
            stop,
            dead: Arc::default(),
        }
    }

    /// Starts a task that must live as long as the engine.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let watch = Watch {
            name,
            liveness: self.clone(),
        };
        self.tasks.spawn(async move {
            let _watch = watch;
            task.await;
        });
    }

    /// The first task that has died, if any.
    pub(crate) fn dead(&self) -> Option<&'static str> {
        self.dead.get().copied()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.liveness.stop.is_cancelled() && self.liveness.dead.set(self.name).is_ok() {
            tracing::error!(
                task = self.name,
                "a task of the engine has ended unexpectedly: this replica is not ready any more, restart the replica"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(
        task: impl Future<Output = ()> + Send + 'static,
        stop_first: bool,
    ) -> LivenessWatch {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let liveness = LivenessWatch::new(tasks.clone(), stop.clone());
        if stop_first {
            stop.cancel();
        }
        liveness.spawn("sweeper", task);
        tasks.close();
        tasks.wait().await;
        liveness
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_noticed() {
        assert_eq!(
            after(async { panic!("a bug") }, false).await.dead(),
            Some("sweeper")
        );
        assert_eq!(after(async {}, false).await.dead(), Some("sweeper"));
        assert_eq!(after(async {}, true).await.dead(), None);
    }
}
