//! Identifiers: [TypeIDs](https://github.com/jetify-com/typeid), a prefix that names the kind and a UUIDv7
//! that sorts by time (`msg_01jq2…`).

use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::{Builder, Uuid};

pub use type_safe_id::Error as ParseIdError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $prefix:literal => $id:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $kind;

        impl StaticType for $kind {
            const TYPE: &'static str = $prefix;
        }

        $(#[$doc])*
        pub type $id = TypeSafeId<$kind>;
    )*};
}

kinds! {
    /// A customer of the gateway: owns apps, keys and messages.
    Tenant = "ten" => TenantId;
    /// An API key; also the OAuth `client_id`.
    Key = "key" => KeyId;
    /// One message to one user.
    Message = "msg" => MessageId;
    /// A tenant's webhook endpoint.
    Webhook = "whk" => WebhookId;
    /// One event, in webhook deliveries and in the audit log.
    Event = "evt" => EventId;
}

/// How many ids [`new`] can keep distinct and in order within one millisecond.
pub const SEQUENCE_LIMIT: u16 = 1 << 12;

/// Makes an id that sorts by `now`, then by the low 12 bits of `sequence`. `entropy` makes the id unique.
///
/// The layout is RFC 9562 §6.2 method 1: the counter is in `rand_a`.
pub fn new<K: StaticType>(now: DateTime<Utc>, sequence: u16, entropy: u64) -> TypeSafeId<K> {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
    let mut random = [0; 10];
    random[..2].copy_from_slice(&(sequence % SEQUENCE_LIMIT).to_be_bytes());
    random[2..].copy_from_slice(&entropy.to_be_bytes());
    TypeSafeId::from_uuid(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

/// As [`new`], with entropy from the SHA-256 of `subject`: every replica and every version of the program makes the same id
/// for the same subject, sequence and time.
pub fn derived<K: StaticType>(now: DateTime<Utc>, sequence: u16, subject: &str) -> TypeSafeId<K> {
    let digest = Sha256::digest(subject);
    let first = digest.iter().take(8);
    let entropy = first.fold(0, |entropy, byte| entropy << 8 | u64::from(*byte));
    new(now, sequence, entropy)
}

/// The most milliseconds that a [`Sequence`] runs ahead of the given time. If the clock was set back by more, the
/// sequence restarts at the new time.
const AHEAD: u64 = 1000;

/// Keeps the ids of one source in the order of creation, also within a millisecond.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// A new id that sorts after all earlier ids.
    pub fn id<K: StaticType>(&self, now: DateTime<Utc>, entropy: u64) -> TypeSafeId<K> {
        let limit = u64::from(SEQUENCE_LIMIT);
        let start = u64::try_from(now.timestamp_millis()).unwrap_or(0) * limit;
        let next = |last: u64| {
            let set_back = last > start + AHEAD * limit;
            if set_back { start } else { start.max(last + 1) }
        };
        let last = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(next(last))
            });
        let place = next(last.unwrap_or_default());
        let millis = i64::try_from(place / limit).unwrap_or_default();
        let time = DateTime::from_timestamp_millis(millis).unwrap_or(now);
        new(time, u16::try_from(place % limit).unwrap_or(0), entropy)
    }
}

/// The smallest UUID of an id made at `time` or later: converts a time filter into a key range.
pub fn lower_bound(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn ids_sort_by_time_then_by_sequence() {
        let now = Utc.timestamp_millis_opt(1_700_000_000_000).unwrap();
        let later = now + chrono::Duration::milliseconds(1);
        let first: MessageId = new(now, 1, u64::MAX);
        let second: MessageId = new(now, 2, 0);
        let third: MessageId = new(later, 0, 0);
        assert!(first.uuid() < second.uuid());
        assert!(second.uuid() < third.uuid());
        assert!(lower_bound(now) < first.uuid() && third.uuid() >= lower_bound(later));
    }

    #[test]
    fn a_sequence_keeps_its_order_past_the_limit_of_a_millisecond() {
        let now = Utc.timestamp_millis_opt(1_700_000_000_000).unwrap();
        let sequence = Sequence::default();
        let ids: Vec<EventId> = (0..u64::from(SEQUENCE_LIMIT) * 2 + 7)
            .map(|number| sequence.id(now, u64::MAX - number))
            .collect();
        assert!(ids.is_sorted_by(|one, next| one.uuid() < next.uuid()));
        let later: EventId = sequence.id(now - chrono::Duration::milliseconds(5), 0);
        assert!(
            ids.last().unwrap().uuid() < later.uuid(),
            "a clock that trembles"
        );
        let back = now - chrono::Duration::hours(1);
        let anew: EventId = sequence.id(back, 0);
        assert!(anew.uuid() >= lower_bound(back) && anew.uuid() < lower_bound(now));
    }

    #[test]
    fn a_derived_id_is_the_same_in_every_version() {
        let now = Utc.timestamp_millis_opt(1_700_000_000_000).unwrap();
        let id: EventId = derived(now, 3, "wx00000000000000a1");
        assert_eq!(
            id.uuid().to_string(),
            "018bcfe5-6800-7003-b681-fc5bd23ae9ef"
        );
        assert_ne!(id, derived(now, 3, "wx00000000000000a2"));
        assert_ne!(id, derived(now, 4, "wx00000000000000a1"));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let message: MessageId = new(Utc.timestamp_millis_opt(0).unwrap(), 0, 7);
        let text = message.to_string();
        assert!(text.starts_with("msg_"));
        assert_eq!(text.parse::<MessageId>().unwrap(), message);
        assert!(text.parse::<TenantId>().is_err());
    }
}
