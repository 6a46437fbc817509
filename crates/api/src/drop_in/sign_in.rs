//! The sign-in of a mini-program's users: the one call besides the token calls that needs the AppSecret. The gateway
//! has the AppSecret, so tenants need not keep it.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use domain::scope::Scope;
use http::{Extensions, Method, Uri};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    gate::{DropInCredentials, Parameters, prove, require_scope},
    pass::{refusal, response},
    reply::{CODE_MISSING, WechatReply},
    tokens::wants_get,
};
use crate::{
    ApiState,
    openapi::Always,
    request_origin::{origin, proof},
};

const GRANT_TYPE: &str = "authorization_code";

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    let (schemas, paths, methods) = routes!(code_to_session);
    OpenApiRouter::default().routes((schemas, paths, methods.fallback(wants_get)))
}

/// The user that signed in. WeChat may add fields.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "the shape is documented here: the gateway returns WeChat's answer unchanged"
)]
struct WechatSession {
    /// The user's id under this app.
    #[schema(example = "oQ8fX4uT2kLmNpR7sVwYzA1bC3dE")]
    openid: String,
    /// The key with which WeChat signs and encrypts this user's data: for the tenant's server alone.
    #[schema(example = "tiihtNczf5v6AKRyjwEUhQ==")]
    session_key: String,
    /// The user's id under all apps of an open-platform account.
    #[schema(example = "o6_bmasdasdsad6_2sgVt7hMZOPfL")]
    unionid: Option<String>,
}

/// The answer of the call, always with HTTP 200.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "the shape is documented here: the answer is one or the other"
)]
enum WechatSessionAnswer {
    Session(WechatSession),
    Refusal(WechatReply),
}

/// Sign a user in, as WeChat's `/sns/jscode2session`
///
/// For SDKs. `secret` is a client secret of the gateway whose key has the scope `wechat:proxy`; the gateway calls
/// WeChat with the app's AppSecret and passes WeChat's answer on. A code is valid once: after -1 let the user call
/// `wx.login()` again. Refusals have WeChat's codes: 40002 for another `grant_type`, 41002, 41004 and 41008 for a
/// missing parameter, 40125 for a wrong secret, 40013 for an app of another tenant, 48001 for a key without the scope,
/// 45011 for too many requests, and WeChat's own codes for the code, such as 40029 and 40163.
#[utoipa::path(
    get, path = "/sns/jscode2session", tag = super::TAG,
    params(
        ("appid" = String, Query, description = "The mini-program.", example = "wx0a1b2c3d4e5f6789"),
        ("secret" = String, Query, description = "A client secret of the gateway.", example = "wxg_…"),
        ("js_code" = String, Query, description = "The code from `wx.login()`.", example = "0d3Xyz0w3aBCdE2fGh1w3Qd1Z54Xyz0R"),
        ("grant_type" = String, Query, description = "`authorization_code`", example = "authorization_code"),
    ),
    responses((status = 200, description = "The identity of the user that signed in; or `errcode` and `errmsg`.", body = WechatSessionAnswer), Always),
)]
async fn code_to_session(
    State(state): State<ApiState>,
    extensions: Extensions,
    uri: Uri,
) -> Response {
    match try_code_to_session(&state, &extensions, &Parameters::of(&uri)).await {
        Ok(answer) => answer,
        Err(reply) => reply.into_response(),
    }
}

async fn try_code_to_session(
    state: &ApiState,
    extensions: &Extensions,
    query: &Parameters,
) -> Result<Response, WechatReply> {
    let given = DropInCredentials {
        grant_type: query.get("grant_type").to_owned(),
        appid: query.get("appid").to_owned(),
        secret: query.get("secret").to_owned(),
    };
    let (caller, tenant, appid) = prove(state, origin(extensions), GRANT_TYPE, given).await?;
    proof(extensions).give();
    require_scope(&caller, Scope::WechatProxy)?;
    let js_code = query.get("js_code");
    if js_code.is_empty() {
        return Err(WechatReply::refused(CODE_MISSING, "missing code"));
    }
    let answer = state.delivery.sign_in(tenant, &appid, js_code).await;
    answer
        .map(response)
        .map_err(|error| refusal(error, &Method::GET))
}
