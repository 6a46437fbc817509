//! Reads the pause of an app from the app's lane.

use super::Pause;
use crate::{entity::lane, timestamp::time};

pub(super) fn pause(lane: lane::Model) -> Option<Pause> {
    let until = time(lane.paused_until?);
    Some(Pause {
        reason: lane.pause_reason?,
        detail: lane.pause_detail,
        until,
    })
}
