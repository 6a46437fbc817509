//! Creating requests under an `Idempotency-Key`: done once, and every repeat gets the same answer.
//!
//! The sealed answer is stored in the transaction of the change, so that neither exists without the other. A refused
//! request leaves its key free, because nothing was done. Messages have their own mechanism
//! (`delivery::Delivery::submit`), which stores less and handles many messages at once.
//!
//! A new creating request needs only a function below that takes a `store::Keep`. The guarantee has three parts:
//! `tenancy::IdempotencyState` separates twins on this replica; the `Keep` words and seals the answer when the outcome is known;
//! the store writes the answer in the transaction of the change, like the audit line (`TenantStore::with_answer`,
//! `TenantStore::note`). Of twins on two replicas, one insert succeeds. The transaction of the other twin is rolled
//! back, and the other twin gets the answer of a repeat.

use axum::response::{IntoResponse, Response};
use domain::id::TenantId;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use store::IdempotencyKey;
use tenancy::{IdempotencyState, Keep};

use crate::{
    ApiState,
    problem::{Problem, ProblemKind},
};

/// `true`: the request was made before, and this is the first answer.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A complete answer, in the form of sending and storing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Worded {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Worded {
    /// An answer with a JSON body.
    pub(crate) fn new(status: StatusCode, body: &impl Serialize) -> Self {
        Self {
            status: status.as_u16(),
            location: None,
            body: serde_json::to_string(body).unwrap_or_default(),
        }
    }

    /// The answer for a new resource, which can be read at `location`.
    pub(crate) fn created(location: String, body: &impl Serialize) -> Self {
        Self {
            location: Some(location),
            ..Self::new(StatusCode::CREATED, body)
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn replay(text: &str) -> Result<Response, Problem> {
        let kept: Self = serde_json::from_str(text).map_err(Problem::internal)?;
        let mut response = kept.into_response();
        let headers = response.headers_mut();
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

impl IntoResponse for Worded {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (status, json, self.body).into_response();
        if let Some(Ok(place)) = self.location.map(HeaderValue::try_from) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        response
    }
}

impl ApiState {
    /// Runs `act` and answers with the words of `word`. If the key stands for a finished request already, answers as
    /// the first time. The key belongs to the tenant, or to the operators.
    pub(crate) async fn once<T, E, F>(
        &self,
        tenant: Option<TenantId>,
        key: Option<IdempotencyKey>,
        word: impl Fn(&T) -> Worded + Clone + Send + 'static,
        act: impl FnOnce(Keep<T>) -> F,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<T, E>>,
        Problem: From<E>,
    {
        let Some(key) = key else {
            let done = act(Keep::nothing()).await?;
            return Ok(word(&done).into_response());
        };
        let held = match self.tenancy.turn(tenant, &key).await? {
            IdempotencyState::Do(held) => held,
            IdempotencyState::Done(answer) => return Worded::replay(&answer),
            IdempotencyState::OtherRequest => return Err(reused()),
            IdempotencyState::Busy => {
                return Err(Problem::new(
                    ProblemKind::Conflict,
                    "the first request with this Idempotency-Key is still running: send the request again in a moment",
                ));
            }
        };
        let keep = {
            let (tenancy, key, word) = (self.tenancy.clone(), key.clone(), word.clone());
            Keep::with(move |done| tenancy.kept(tenant, key, &word(done).text()))
        };
        let done = act(keep).await;
        drop(held);
        let refused = match done {
            Ok(done) => return Ok(word(&done).into_response()),
            Err(refused) => refused,
        };
        // A twin on another replica may have done the change meanwhile: then this request gets the twin's answer.
        match self.tenancy.turn(tenant, &key).await {
            Ok(IdempotencyState::Done(answer)) => Worded::replay(&answer),
            Ok(IdempotencyState::OtherRequest) => Err(reused()),
            _ => Err(refused.into()),
        }
    }
}

fn reused() -> Problem {
    let kind = ProblemKind::IdempotencyKeyReused;
    Problem::new(kind, kind.example())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_replay_is_the_first_answer_with_a_mark() {
        let body = serde_json::json!({"b": 1, "a": 2});
        let first = Worded::created("/v1/things/7".to_owned(), &body);
        let again = Worded::replay(&first.text()).unwrap();
        let first = first.into_response();
        assert_eq!(again.status(), first.status());
        assert_eq!(
            again.headers()[header::LOCATION],
            first.headers()[header::LOCATION]
        );
        assert_eq!(again.headers()[IDEMPOTENT_REPLAYED], "true");
        assert!(!first.headers().contains_key(IDEMPOTENT_REPLAYED));
        let read = async |response: Response| to_bytes(response.into_body(), 999).await.unwrap();
        assert_eq!(read(again).await, read(first).await);
    }
}
