//! Authentication of drop-in calls: the token in the query or a client secret, its scope, its rate limit.

use domain::{app::AppId, id::TenantId, scope::Scope, secret::ClientSecret};
use http::{Extensions, Uri};
use store::{Actor, Origin};
use tenancy::Caller;

use super::reply::{
    APPID_MISSING, APPSECRET_MISSING, INVALID_GRANT_TYPE, TOO_FAST, UNAUTHORIZED, WechatReply,
};
use crate::{ApiState, request_origin};

/// The parameters of a query, in order.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The parameters of `uri`.
    pub(super) fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The value of the first parameter with this name; empty if absent.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value)
    }
}

/// An authenticated and authorised caller.
pub(super) struct DropInCaller {
    /// The tenant of the caller's key.
    pub(super) tenant: TenantId,
    /// The app of the caller's token.
    pub(super) appid: AppId,
    /// The caller's key, the request's id and the client's address.
    pub(super) origin: Origin,
}

/// Accepts a token of a key with `scope`, within the tenant's rate limit.
pub(super) async fn enter(
    state: &ApiState,
    extensions: &Extensions,
    query: &Parameters,
    scope: Scope,
) -> Result<DropInCaller, WechatReply> {
    let origin = request_origin::origin(extensions);
    let tenancy = state.tenancy.by(origin.clone());
    let token = query.get("access_token");
    let (caller, appid) = tenancy.authenticate_drop_in(token).await?;
    request_origin::proof(extensions).give();
    let Some(tenant) = caller.tenant else {
        return Err(WechatReply::invalid_appid());
    };
    // A call without the scope counts like any other call, as under `/v1`.
    check_rate(state, &caller).await?;
    require_scope(&caller, scope)?;
    let origin = Origin {
        actor: Actor::Key(caller.key),
        ..origin
    };
    Ok(DropInCaller {
        tenant,
        appid,
        origin,
    })
}

/// The credentials of a call that has no token.
pub(super) struct DropInCredentials {
    /// The `grant_type` parameter.
    pub(super) grant_type: String,
    /// The appid.
    pub(super) appid: String,
    /// A client secret.
    pub(super) secret: String,
}

/// Accepts a caller with a client secret, within the tenant's rate limit. The calling function checks afterwards that
/// the app belongs to the tenant: a client without a secret learns nothing about apps.
pub(super) async fn prove(
    state: &ApiState,
    origin: Origin,
    grant_type: &str,
    given: DropInCredentials,
) -> Result<(Caller, TenantId, AppId), WechatReply> {
    if given.grant_type != grant_type {
        let words = format!("invalid grant_type: must be {grant_type}");
        return Err(WechatReply::refused(INVALID_GRANT_TYPE, words));
    }
    if given.appid.is_empty() {
        return Err(WechatReply::refused(APPID_MISSING, "appid missing"));
    }
    if given.secret.is_empty() {
        return Err(WechatReply::refused(APPSECRET_MISSING, "appsecret missing"));
    }
    let caller = state
        .tenancy
        .by(origin)
        .prove(&ClientSecret::new(given.secret))
        .await?;
    check_rate(state, &caller).await?;
    let (Some(tenant), Ok(appid)) = (caller.tenant, AppId::parse(given.appid)) else {
        return Err(WechatReply::invalid_appid());
    };
    Ok((caller, tenant, appid))
}

/// Refuses a caller with a key that lacks `scope`.
pub(super) fn require_scope(caller: &Caller, scope: Scope) -> Result<(), WechatReply> {
    if caller.scopes.contains(scope) {
        Ok(())
    } else {
        let words = format!(
            "api unauthorized: this call needs the scope `{scope}`, use a key that has this scope"
        );
        Err(WechatReply::refused(UNAUTHORIZED, words))
    }
}

/// Counts a call against the tenant's requests per second.
async fn check_rate(state: &ApiState, caller: &Caller) -> Result<(), WechatReply> {
    if state.tenancy.admit(caller).await.allowed {
        Ok(())
    } else {
        let words = "api minute-quota reach limit, must slower, retry next minute: the tenant has used up its requests \
            per second";
        Err(WechatReply::refused(TOO_FAST, words))
    }
}
