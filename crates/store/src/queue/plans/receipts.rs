//! The work on receipts: receipts that wait for messages, and receipts that are tried again.

use domain::{app::AppId, message::Channel};

use super::at;
use crate::{
    Store,
    queue::{MatchFields, NewReceipt},
};

/// Runs all the work on receipts. The receipts find no message by the msgid, and all have [`MatchFields`].
pub(super) async fn work(store: &Store) {
    let platform = store.platform();
    let receipts: Vec<NewReceipt> = (0..64)
        .map(|number| NewReceipt {
            tenant: domain::id::new(at(0), 1, 1),
            appid: AppId::parse("wx0000000000000001").unwrap(),
            touser: format!("ended{number}"),
            msgid: number + 1,
            delivered: true,
            failure_detail: None,
            circumstances: Some(MatchFields {
                channel: Channel::Subscribe,
                template_id: Some("t".into()),
                happened_at: at(60),
            }),
        })
        .collect();
    let received = platform.receive(&receipts, at(60)).await.unwrap();
    assert_eq!(received, (Vec::new(), 0));
    let swept = platform.sweep_receipts("", at(61)).await.unwrap();
    assert_eq!(swept.settled, []);
}
