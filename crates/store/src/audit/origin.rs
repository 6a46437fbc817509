//! Who does something, and from where.

use std::{fmt, net::IpAddr, str::FromStr};

use domain::id::KeyId;

use super::NewAuditLine;

/// Who does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A tenant's key.
    Key(KeyId),
    /// An operator's key. The tenants whose things it changes are not told which.
    Operator(KeyId),
    /// Somebody at the command line.
    Cli,
    /// The gateway by itself.
    Gateway,
}

const OPERATOR: &str = "operator:";
const CLI: &str = "cli";
const GATEWAY: &str = "gateway";

/// As the log keeps it.
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

/// The text names nobody that the log knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody that the audit log knows")]
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

/// Who asks for something, with which request and from where: what every line says of its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub actor: Actor,
    /// With which request; none: with none.
    pub request_id: Option<String>,
    /// The client's address; none: on this machine.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// The gateway by itself.
    pub const GATEWAY: Self = Self {
        actor: Actor::Gateway,
        request_id: None,
        address: None,
    };

    /// Somebody at the command line.
    pub const CLI: Self = Self {
        actor: Actor::Cli,
        request_id: None,
        address: None,
    };

    /// The line that says that this one did `action` to `target`.
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

    /// The line that says that this one wanted to do `action` to `target` and was refused, and why.
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

impl NewAuditLine {
    /// The same line with a sentence more.
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
