//! `GET /sns/jscode2session`.

use std::borrow::Cow;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::call::{CallReply, ParsedCall, check_method, take_quota};
use super::issue::check_secret;
use super::query;
use crate::account::AccountKind;
use crate::app::SimulatedApp;
use crate::ids::mix;
use crate::refusal::Refusal;
use crate::world::World;

/// The code that `wx.login()` returns in the developer tools without an appid.
const MOCK_CODE: &str = "the code is a mock one";

/// A sign-in that names an account.
pub(super) struct SignInRequest<'a> {
    pub(super) app: Arc<SimulatedApp>,
    secret: Cow<'a, str>,
    code: Cow<'a, str>,
}

impl<'a> SignInRequest<'a> {
    /// Reads a sign-in: 43001, 41002, 41004, 41008, 40002, 40013.
    pub(super) fn read(world: &World, call: &ParsedCall<'a>) -> Result<Self, Refusal> {
        check_method(call)?;
        let given = |name, missing| match query::value(call.query, name) {
            value if value.is_empty() => Err(Refusal::known(missing)),
            value => Ok(value),
        };
        let appid = given("appid", 41002)?;
        let secret = given("secret", 41004)?;
        let code = given("js_code", 41008)?;
        if query::value(call.query, "grant_type") != "authorization_code" {
            return Err(Refusal::known(40002));
        }
        let app = world.resolve(&appid)?;
        Ok(Self { app, secret, code })
    }
}

/// Answers the user's openid, which is the code after an `o`. Each code is valid once.
pub(super) fn act(world: &World, call: &ParsedCall<'_>, request: &SignInRequest<'_>) -> CallReply {
    let app = &request.app;
    take_quota(call, app)?;
    check_secret(call, app, &request.secret)?;
    if app.settings().kind != AccountKind::MiniProgram {
        return Err(Refusal::known(48001));
    }
    if request.code == MOCK_CODE {
        return Err(Refusal::known(40029));
    }
    if !app.spent_codes.insert(request.code.as_ref().into()) {
        return Err(Refusal::known(40163));
    }
    let half = mix(world.mint.salt());
    let key = BASE64_STANDARD.encode([half, mix(half)].map(u64::to_be_bytes).concat());
    let openid = format!("o{}", request.code);
    Ok(serde_json::json!({"session_key": key, "openid": openid}).to_string())
}
