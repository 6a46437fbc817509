//! What the engine and its tasks are made of: the dependencies that `gateway` passes in.

use std::sync::Arc;

use broker::Broker;
use coord::Coord;
use domain::seal::MasterKey;
use serde_json::Value;
use store::{Message, Store};

use crate::metrics::DeliveryMetrics;

/// Renders a message as the API does. The gateway provides this function, because this crate knows no wire format.
pub type ShowMessage = Arc<dyn Fn(Message) -> Value + Send + Sync>;

/// The dependencies of the engine.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Coordination between replicas: time, leases, wake-ups, rate limits.
    pub coord: Coord,
    /// The client of WeChat's API.
    pub wechat: wechat::Client,
    /// The source of access tokens.
    pub broker: Broker,
    /// Seals AppSecrets.
    pub master_key: MasterKey,
    /// The metrics of this crate.
    pub metrics: DeliveryMetrics,
    /// Renders a message for webhook events.
    pub show_message: ShowMessage,
}
