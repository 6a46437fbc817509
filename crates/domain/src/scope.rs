//! Scopes: what an API key may do.

use std::{fmt, str::FromStr};

macro_rules! scopes {
    ($($(#[$doc:meta])* $scope:ident = $text:literal,)*) => {
        /// One permission of an API key.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Scope { $($(#[$doc])* $scope,)* }

        impl Scope {
            /// All scopes, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$scope,)*];

            /// The name in tokens and requests.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$scope => $text,)* }
            }
        }
    };
}

scopes! {
    /// Send, cancel and retry messages.
    MessagesSend = "messages:send",
    /// Read messages and their attempts.
    MessagesRead = "messages:read",
    /// Add form ids and subscribe grants.
    GrantsWrite = "grants:write",
    /// Read the form-id pool, the subscription ledger and reach estimates.
    GrantsRead = "grants:read",
    /// Read apps, token state and quota.
    AppsRead = "apps:read",
    /// Register, change and remove apps.
    AppsWrite = "apps:write",
    /// Read WeChat's access token itself.
    TokensRead = "tokens:read",
    /// Read synced templates.
    TemplatesRead = "templates:read",
    /// Manage webhooks.
    WebhooksWrite = "webhooks:write",
    /// Read webhooks and their deliveries.
    WebhooksRead = "webhooks:read",
    /// Make and revoke the tenant's keys.
    KeysWrite = "keys:write",
    /// Read the audit log.
    AuditRead = "audit:read",
    /// Pass other WeChat calls through the gateway.
    WechatProxy = "wechat:proxy",
    /// Operate the gateway: opens `/v1/tenants`. Only an operator's key has this scope.
    Operator = "operator",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is not a scope; the scopes are: {all}", name = .0, all = ScopeSet::all())]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A set of scopes. Displays and parses as the blank-separated list of RFC 6749.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Every scope, including the operator's scope.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Every scope that a tenant's key may have.
    pub fn tenant() -> Self {
        Scope::ALL
            .iter()
            .copied()
            .filter(|scope| *scope != Scope::Operator)
            .collect()
    }

    /// Whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Whether every scope of `other` is in the set.
    pub fn includes(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The scopes in the order of the documentation.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .iter()
            .copied()
            .filter(move |scope| self.contains(*scope))
    }

    fn bit(scope: Scope) -> u32 {
        1 << (scope as u32)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |bits, scope| bits | Self::bit(scope)),
        )
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for ScopeSet {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_ascii_whitespace()
            .map(str::parse::<Scope>)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_print_and_parse() {
        let set: ScopeSet = "messages:read messages:send".parse().unwrap();
        assert_eq!(set.to_string(), "messages:send messages:read");
        assert!(ScopeSet::tenant().includes(set) && !set.includes(ScopeSet::tenant()));
        assert!(!ScopeSet::tenant().contains(Scope::Operator));
        assert_eq!(
            "messages:fly".parse::<ScopeSet>(),
            Err(UnknownScope("messages:fly".into()))
        );
        assert_eq!(
            ScopeSet::all().to_string().parse::<ScopeSet>().unwrap(),
            ScopeSet::all()
        );
    }
}
