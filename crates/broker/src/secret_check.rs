//! Trials of an AppSecret for an app that may have an owner already.
//!
//! The requester has proven nothing yet, so a trial changes nothing that the app's owner uses: neither the tokens nor
//! the budgets nor the fetch lease. WeChat's stable tokens make this possible: a call without force returns the present
//! token, and stable tokens are separate from legacy tokens.

use chrono::{DateTime, Utc};
use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};
use wechat::FetchedToken;

use crate::{Broker, BrokerError, Proof, fetch::Fetch, memory::Memory};

/// The answer of WeChat to an AppSecret, before the gateway knows whether the app is free.
#[derive(Debug)]
pub struct SecretCheck {
    pub(crate) fetched: FetchedToken,
    pub(crate) asked_at: DateTime<Utc>,
}

impl Broker {
    /// Tries a secret with one harmless call, which the app's budgets do not count. The refusal is the same for a
    /// registered and for an unregistered app.
    pub async fn check_secret(
        &self,
        appid: &AppId,
        secret: &AppSecret,
    ) -> Result<SecretCheck, BrokerError> {
        let inner = self.inner();
        let asked_at = inner.coord.clock().now();
        let outcome = inner.client.fetch_stable_token(appid, secret, false).await;
        inner.metrics.fetched(TokenMode::Stable, false, &outcome);
        let fetched = outcome.map_err(|error| {
            tracing::warn!(%appid, %error, "WeChat refuses an AppSecret");
            BrokerError::refused(error, inner.coord.clock().now(), 1)
        })?;
        if fetched.expires_in.is_zero() {
            let memory = Memory::new(asked_at);
            return Err(inner.later(&memory, "WeChat returned a token that has ended"));
        }
        Ok(SecretCheck { fetched, asked_at })
    }

    /// Turns the trial of a secret into the proof of an app that is free. In stable mode the proof has the token of the
    /// trial. Legacy mode takes one more fetch, which ends the legacy token that another system may use.
    pub async fn prove_tried(
        &self,
        appid: &AppId,
        secret: &AppSecret,
        mode: TokenMode,
        trial: SecretCheck,
    ) -> Result<Proof, BrokerError> {
        match mode {
            TokenMode::Legacy => self.prove(appid, secret, mode).await,
            TokenMode::Stable => {
                let memory = self.known(appid);
                let fetch = Fetch::begin(self.inner(), appid, &memory).await;
                let proof = fetch.of_trial(trial).await;
                self.inner().deferred.ring();
                Ok(proof)
            }
        }
    }
}
