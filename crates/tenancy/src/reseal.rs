//! The change of the master key: seals all sealed values of the database again, under the new key.

use domain::seal::MasterKeyId;
use store::{AuditFilter, Page, SealedColumn};

use crate::{Tenancy, TenancyError};

/// How many values one query reads.
const BATCH: u64 = 100;

/// The number of values of each kind that were sealed again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed(pub Vec<(SealedColumn, u64)>);

impl Resealed {
    /// The number of values of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

/// The action in the audit log for a change of the master key.
const ACTION: &str = "master_key.rotate";

fn sealed_anew(previous: MasterKeyId) -> String {
    format!("of master key {previous} were sealed anew")
}

impl Tenancy {
    /// Seals under the present master key all values that are sealed under the previous one, which the configured
    /// master key also opens. An interrupted run keeps the values done so far, and the next run continues there. Where
    /// another request changes a value during the run, that change stays.
    pub async fn reseal(&self) -> Result<Resealed, TenancyError> {
        let mut done = Resealed::default();
        for place in SealedColumn::ALL {
            done.0.push((place, self.reseal_place(place).await?));
        }
        let inner = &*self.0;
        if let Some(previous) = inner.master_key.secondary_id().filter(|_| done.total() > 0) {
            let words = format!("{} secrets {}", done.total(), sealed_anew(previous));
            let line = self.1.did(ACTION, &inner.master_key.id()).saying(words);
            let now = inner.coord.clock().now();
            inner.store.platform().append_audit(line, now).await?;
        }
        Ok(done)
    }

    /// Whether the last change of the master key in the audit log was from `previous` to the present key.
    pub async fn has_resealed(&self, previous: MasterKeyId) -> Result<bool, TenancyError> {
        let inner = &*self.0;
        let filter = AuditFilter {
            action: Some(ACTION.to_owned()),
            ..AuditFilter::default()
        };
        let newest = Page {
            limit: 1,
            after: None,
        };
        let lines = inner.store.platform().audit(&filter, &newest).await?.items;
        let key = inner.master_key.id().to_string();
        Ok(lines.first().is_some_and(|newest| {
            let detail = newest.line.detail.as_deref().unwrap_or_default();
            newest.line.target == key && detail.ends_with(&sealed_anew(previous))
        }))
    }

    async fn reseal_place(&self, place: SealedColumn) -> Result<u64, TenancyError> {
        let inner = &*self.0;
        let (platform, key) = (inner.store.platform(), &inner.master_key);
        let mut done = 0;
        loop {
            let values = platform
                .sealed_with_other_key(place, key.id(), BATCH)
                .await?;
            if values.is_empty() {
                return Ok(done);
            }
            for value in values {
                let plain = key.open(&value.owner, &value.sealed)?;
                let anew = key.seal(&value.owner, rand::random(), &plain);
                done += u64::from(platform.replace_sealed(&value, anew).await?);
            }
        }
    }
}
