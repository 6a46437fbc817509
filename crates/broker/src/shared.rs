//! The cells that replicas share for each app: the sealed token and the ledger.
//!
//! The cells save fetches, and no send needs a cell. Updates that Redis could not take are deferred: see `deferred`.

use chrono::DateTime;
use coord::{Cell, Coord, CoordError};
use domain::{
    app::{AppId, TokenMode},
    seal::{MasterKey, SealOwner},
    secret::AccessToken,
};
use zeroize::Zeroizing;

use crate::{
    ledger::Ledger,
    token::{HeldToken, Token},
};

/// The most rounds of merging and writing a ledger.
const PUTS: u32 = 4;

/// The cells of all apps.
pub(crate) struct SharedCells {
    coord: Coord,
    master_key: MasterKey,
}

impl SharedCells {
    pub(crate) fn new(coord: Coord, master_key: MasterKey) -> Self {
        Self { coord, master_key }
    }

    /// The token in the cell, if alive.
    pub(crate) async fn token(&self, appid: &AppId) -> Option<HeldToken> {
        let cell = self.coord.cells().get(&token_key(appid)).await.ok()??;
        let held = self.unseal(appid, &cell);
        if held.is_none() {
            tracing::warn!(%appid, "the shared token cannot be opened: check that all replicas use the same master key");
        }
        held.filter(|held| held.is_alive(self.coord.clock().now()))
    }

    /// Puts a token into the cell for the other replicas, unless a later one is there.
    pub(crate) async fn put_token(
        &self,
        appid: &AppId,
        held: &HeldToken,
    ) -> Result<(), CoordError> {
        let cell = Cell {
            value: self.seal(appid, held),
            generation: held.token.generation,
        };
        let cells = self.coord.cells();
        cells
            .put(&token_key(appid), cell, held.token.expires_at)
            .await?;
        Ok(())
    }

    /// Removes the token of this generation; none: any token.
    pub(crate) async fn drop_token(&self, appid: &AppId, generation: Option<u64>) {
        let (cells, key) = (self.coord.cells(), token_key(appid));
        let generation = match generation {
            Some(generation) => Some(generation),
            None => cells
                .get(&key)
                .await
                .ok()
                .flatten()
                .map(|cell| cell.generation),
        };
        if let Some(generation) = generation {
            // Fails when Redis is away; the token then harmlessly stays until its end.
            let _ = cells.drop_if(&key, generation).await;
        }
    }

    /// The ledger in the cell: today's fetches of the other replicas.
    pub(crate) async fn ledger(&self, appid: &AppId) -> Result<Option<Ledger>, CoordError> {
        let cell = self.coord.cells().get(&ledger_key(appid)).await?;
        Ok(cell.and_then(|cell| Ledger::from_text(str::from_utf8(&cell.value).ok()?)))
    }

    /// Merges this replica's ledger into the cell, and returns the merged ledger.
    pub(crate) async fn add_to_ledger(
        &self,
        appid: &AppId,
        ours: Ledger,
    ) -> Result<Ledger, CoordError> {
        let mut together = ours;
        // Ends when the cell has the merged ledger: another replica may write at the same time.
        for _ in 0..PUTS {
            let now = self.coord.clock().now();
            let theirs = self.ledger(appid).await?.unwrap_or_default().at(now);
            together = together.merge(theirs, now);
            if together == theirs {
                break;
            }
            let cell = Cell {
                value: together.to_text().into_bytes(),
                generation: together.generation(),
            };
            let (key, deadline) = (ledger_key(appid), together.deadline(now));
            self.coord.cells().put(&key, cell, deadline).await?;
        }
        Ok(together)
    }

    /// Generation, mode, times and token as lines, sealed. The generation is sealed too, so that an attacker with
    /// access to Redis alone cannot present an old token as a new one.
    fn seal(&self, appid: &AppId, held: &HeldToken) -> Vec<u8> {
        let HeldToken {
            token:
                Token {
                    value,
                    generation,
                    expires_at,
                },
            mode,
            fetched_at,
            ..
        } = held;
        let (fetched_at, expires_at) =
            (fetched_at.timestamp_millis(), expires_at.timestamp_millis());
        let (mode, value) = (word(*mode), value.expose());
        let plain = Zeroizing::new(format!(
            "{generation}\n{mode}\n{fetched_at}\n{expires_at}\n{value}"
        ));
        self.master_key
            .seal(&SealOwner::access_token(appid), rand::random(), &plain)
    }

    fn unseal(&self, appid: &AppId, cell: &Cell) -> Option<HeldToken> {
        let plain = self
            .master_key
            .open(&SealOwner::access_token(appid), &cell.value)
            .ok()?;
        let mut lines = plain.splitn(5, '\n');
        let generation = lines
            .next()?
            .parse()
            .ok()
            .filter(|generation| *generation == cell.generation)?;
        let mode = lines.next()?;
        let mode = [TokenMode::Stable, TokenMode::Legacy]
            .into_iter()
            .find(|known| word(*known) == mode)?;
        let fetched_at = DateTime::from_timestamp_millis(lines.next()?.parse().ok()?)?;
        let expires_at = DateTime::from_timestamp_millis(lines.next()?.parse().ok()?)?;
        let value = AccessToken::new(lines.next()?).into();
        Some(HeldToken::new(
            Token {
                value,
                generation,
                expires_at,
            },
            mode,
            fetched_at,
        ))
    }
}

fn token_key(appid: &AppId) -> String {
    format!("token:{appid}")
}

fn ledger_key(appid: &AppId) -> String {
    format!("token-ledger:{appid}")
}

fn word(mode: TokenMode) -> &'static str {
    match mode {
        TokenMode::Stable => "stable",
        TokenMode::Legacy => "legacy",
    }
}
