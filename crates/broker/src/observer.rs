//! What an audit log wants to hear of the broker.

use async_trait::async_trait;
use domain::app::AppId;

use crate::{Budget, BudgetKind, ForeignRefresh};

/// Something that the owner of an app should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another system replaced the app's token. Told once for each token, by the replica that repaired it.
    ForeignRefresh(ForeignRefresh),
    /// A token died young while Redis did not answer, so that another replica may have replaced it as well as another
    /// system. [`Event::ForeignRefresh`] follows when Redis answers and no replica did.
    DiedYoung,
    /// A budget has passed 80 or 95 percent. Told once for each, by the replica whose fetch passed it.
    BudgetLow {
        /// Which.
        kind: BudgetKind,
        /// How much of it is used.
        budget: Budget,
    },
}

/// Hears of events. Runs beside the fetch, so no sender waits for it; [`Broker::shutdown`](crate::Broker::shutdown)
/// does.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Takes notice.
    async fn observe(&self, appid: &AppId, event: Event);
}
