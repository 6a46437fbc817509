//! The actor of an action, and the origin of the request.

use std::{fmt, net::IpAddr, str::FromStr};

use domain::id::KeyId;

/// The actor of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A tenant's key.
    Key(KeyId),
    /// An operator's key. Tenants do not see which operator key changed their data.
    Operator(KeyId),
    /// A user of the command line.
    Cli,
    /// The gateway itself.
    Gateway,
}

const OPERATOR: &str = "operator:";
const CLI: &str = "cli";
const GATEWAY: &str = "gateway";

/// The text form in the audit log.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Operator(key) => write!(f, "{OPERATOR}{key}"),
            Self::Cli => f.write_str(CLI),
            Self::Gateway => f.write_str(GATEWAY),
        }
    }
}

/// The error for a text that names no actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text names no actor of the audit log")]
pub struct UnknownActor;

impl FromStr for Actor {
    type Err = UnknownActor;

    fn from_str(text: &str) -> Result<Self, UnknownActor> {
        let key = |text: &str| text.parse().map_err(|_| UnknownActor);
        match text {
            CLI => Ok(Self::Cli),
            GATEWAY => Ok(Self::Gateway),
            _ => match text.strip_prefix(OPERATOR) {
                Some(operator) => key(operator).map(Self::Operator),
                None => key(text).map(Self::Key),
            },
        }
    }
}

/// The origin of an action: actor, request and address. Every audit line contains the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The actor.
    pub actor: Actor,
    /// The id of the request, or `None` without a request.
    pub request_id: Option<String>,
    /// The client's address, or `None` for this machine.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// The origin of actions of the gateway itself.
    pub const GATEWAY: Self = Self {
        actor: Actor::Gateway,
        request_id: None,
        address: None,
    };

    /// The origin of actions at the command line.
    pub const CLI: Self = Self {
        actor: Actor::Cli,
        request_id: None,
        address: None,
    };

    /// The audit line for a completed `action` on `target`.
    pub fn did(&self, action: &str, target: &impl fmt::Display) -> NewAuditLine {
        NewAuditLine {
            actor: self.actor.to_string(),
            action: action.to_owned(),
            target: target.to_string(),
            outcome: "ok".to_owned(),
            detail: None,
            request_id: self.request_id.clone(),
            address: self.address.map(|address| address.to_string()),
        }
    }

    /// The audit line for a refused `action` on `target`, with the reason.
    pub fn was_refused(
        &self,
        action: &str,
        target: &impl fmt::Display,
        why: &impl fmt::Display,
    ) -> NewAuditLine {
        NewAuditLine {
            outcome: "refused".to_owned(),
            detail: Some(why.to_string()),
            ..self.did(action, target)
        }
    }
}

/// The content of an audit line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAuditLine {
    /// The actor, in the text form of [`Actor`].
    pub actor: String,
    /// The action, in one word.
    pub action: String,
    /// The thing that the action concerns.
    pub target: String,
    /// How the action ended, in one word.
    pub outcome: String,
    /// More details, in a sentence.
    pub detail: Option<String>,
    /// The request that asked for the action, or `None` where no request did.
    pub request_id: Option<String>,
    /// The address from which the request came.
    pub address: Option<String>,
}

impl NewAuditLine {
    /// This line with `detail` added.
    #[must_use]
    pub fn saying(self, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_are_read_as_they_are_kept() {
        let key: KeyId = domain::id::new(chrono::DateTime::UNIX_EPOCH, 1, 7);
        for actor in [
            Actor::Key(key),
            Actor::Operator(key),
            Actor::Cli,
            Actor::Gateway,
        ] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        assert_eq!("operator:cli".parse::<Actor>(), Err(UnknownActor));
        assert_eq!("msg_1".parse::<Actor>(), Err(UnknownActor));
    }
}
