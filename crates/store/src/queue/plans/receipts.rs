//! Receipts that wait for their messages, and those that are looked at again.

use domain::{app::AppId, message::Channel};

use super::at;
use crate::{
    Store,
    queue::{Circumstances, NewReceipt},
};

/// Everything that is done with receipts: some find no message, and all of those say what else is known of it.
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
            circumstances: Some(Circumstances {
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
