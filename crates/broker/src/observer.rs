//! The events of the broker for an audit log.

use async_trait::async_trait;
use domain::app::AppId;

use crate::{Budget, BudgetKind, ForeignRefresh};

/// An event that the owner of an app should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerEvent {
    /// Another system replaced the app's token. Sent once for each token, by the replica that repaired the token.
    ForeignRefresh(ForeignRefresh),
    /// A token died young while Redis did not answer, so that another replica or another system may have replaced the
    /// token. [`BrokerEvent::ForeignRefresh`] follows when Redis answers and no replica was the cause.
    DiedYoung,
    /// A budget has passed 80 or 95 percent. Sent once for each mark, by the replica whose fetch passed the mark.
    BudgetLow {
        /// The kind of budget.
        kind: BudgetKind,
        /// The limit and the used part.
        budget: Budget,
    },
}

/// Receives events. An observer runs beside the fetch, so no sender waits for it;
/// [`Broker::shutdown`](crate::Broker::shutdown) waits.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Handles one event.
    async fn observe(&self, appid: &AppId, event: BrokerEvent);
}
