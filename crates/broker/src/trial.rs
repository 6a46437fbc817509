//! Trying the AppSecret of an app that may have an owner already.
//!
//! Whoever asks has proven nothing yet, so nothing here touches what the app's owner lives on: neither its tokens nor
//! its budgets, nor the turn in which they are fetched. WeChat's stable tokens make that possible: without force it
//! answers with the token that there is, and they are apart from legacy tokens.

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};
use wechat::FetchedToken;

use crate::{Broker, BrokerError, Proof, fetch::Fetch, memory::Memory};

/// What an AppSecret that WeChat takes has brought, before anybody knows whether the app is free.
#[derive(Debug)]
pub struct Trial {
    pub(crate) fetched: FetchedToken,
    pub(crate) asked_at: DateTime<Utc>,
}

impl Broker {
    /// Tries a secret with one harmless call, which no budget of the app's counts. The refusal is the same for an app
    /// that is registered and for one that is not.
    pub async fn try_secret(
        &self,
        appid: &AppId,
        secret: &AppSecret,
    ) -> Result<Trial, BrokerError> {
        let inner = self.inner();
        let asked_at = inner.coord.clock().now();
        let outcome = inner.client.fetch_stable_token(appid, secret, false).await;
        inner.metrics.fetched(TokenMode::Stable, false, &outcome);
        let fetched = outcome.map_err(|error| {
            tracing::warn!(%appid, %error, "an AppSecret is refused");
            BrokerError::refused(error, inner.coord.clock().now(), 1)
        })?;
        if fetched.expires_in.is_zero() {
            let memory = Memory::new(asked_at);
            return Err(inner.later(&memory, "WeChat returned a token that has ended"));
        }
        Ok(Trial { fetched, asked_at })
    }

    /// Makes the proof of an app that is free of the trial of its secret: the trial's token, or in legacy mode one more
    /// fetch, which ends the legacy token that another system may use.
    pub async fn prove_tried(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        mode: TokenMode,
        trial: Trial,
    ) -> Result<Proof, BrokerError> {
        match mode {
            TokenMode::Legacy => self.prove(appid, secret, mode).await,
            TokenMode::Stable => {
                let memory = self.known(appid);
                let fetch = Fetch::begin(self.inner(), appid, &memory).await;
                let proof = fetch.of_trial(trial).await;
                self.inner().arrears.ring();
                Ok(proof)
            }
        }
    }
}
