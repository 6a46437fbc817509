//! Trials of an AppSecret for an app that may have an owner already.
//!
//! The requester has proven nothing yet, so a trial changes nothing that the app's owner uses: neither the tokens nor
//! the budgets nor the fetch lease. WeChat's stable tokens make this possible: a call without force returns the present
//! token, and stable tokens are separate from legacy tokens.

use domain::{
    app::{AppId, TokenMode},
    secret::AppSecret,
};

use crate::{Broker, BrokerError, Proof, SecretCheck, fetch::Fetch, memory::Memory};

impl Broker {
    /// Tries a secret with one harmless call, which the app's budgets do not count. The refusal is the same for a
    /// registered and for an unregistered app.
    pub async fn check_secret(
        &self,
        appid: &AppId,
        secret: &AppSecret,
    ) -> Result<SecretCheck, BrokerError> {
        let fetcher = self.fetcher();
        let asked_at = fetcher.coord.clock().now();
        let outcome = fetcher
            .client
            .fetch_stable_token(appid, secret, false)
            .await;
        fetcher.metrics.fetched(TokenMode::Stable, false, &outcome);
        let fetched = outcome.map_err(|error| {
            tracing::warn!(%appid, %error, "WeChat refuses an AppSecret");
            BrokerError::refused(error, fetcher.coord.clock().now(), 1)
        })?;
        if fetched.expires_in.is_zero() {
            let memory = Memory::new(asked_at);
            return Err(fetcher.later(&memory, "WeChat returned a token that has ended"));
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
                let fetch = Fetch::begin(self.fetcher(), appid, &memory).await;
                let proof = fetch.of_trial(trial).await;
                self.fetcher().deferred.ring();
                Ok(proof)
            }
        }
    }
}
