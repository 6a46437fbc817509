//! The control interface over HTTP, under `/_sim/`.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::account::AppSettings;
use crate::control::Control;
use crate::faults::Fault;
use crate::form_ids::FormId;

/// The path prefix of the control API.
pub(crate) const PREFIX: &str = "/_sim/";
/// The control API's documentation for readers.
pub(crate) const PAGE: &str = include_str!("../controls.md");

/// All fields of a fault and of the effects. Unknown fields are refused: a misspelled `count` would make a fault that
/// never ends.
const FAULT_FIELDS: [&str; 13] = [
    "appid",
    "openid",
    "path",
    "probability",
    "count",
    "kind",
    "ms",
    "errcode",
    "errmsg",
    "status",
    "body",
    "shape",
    "acted",
];

/// Why a control call did nothing; the text says what to do.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("there is no {method} {PREFIX}{path}; GET {PREFIX} lists the calls")]
    NoSuchCall { method: Method, path: String },
    #[error(
        "account {appid} is unknown; register it with PUT {PREFIX}apps/{appid} or let it fetch a token"
    )]
    NoSuchApp { appid: String },
    #[error("no fault has the number {id}; GET {PREFIX}faults lists them")]
    NoSuchFault { id: String },
    #[error("the body cannot be used: {0}; correct it and send it again")]
    Body(#[from] serde_json::Error),
    #[error("a fault has no field {field}; the fields are {}", FAULT_FIELDS.join(", "))]
    FaultField { field: String },
    #[error("the probability {given} is not between 0 and 1; correct it and send it again")]
    Probability { given: f64 },
}

impl ControlError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchCall { .. } | Self::NoSuchApp { .. } | Self::NoSuchFault { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::Body(_) | Self::FaultField { .. } | Self::Probability { .. } => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockBody {
    #[serde(default)]
    advance_seconds: Option<i64>,
    #[serde(default)]
    now: Option<i64>,
    #[serde(default)]
    release: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LatencyBody {
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantsBody {
    grants: Vec<GrantBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    openid: String,
    template_id: String,
    /// 0 removes all grants of the user for the template.
    count: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormIdsBody {
    form_ids: Vec<FormId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersBody {
    openids: Vec<String>,
}

/// Answers one control call: a status and JSON.
pub(crate) fn answer(
    control: &Control,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> (StatusCode, String) {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    match act(control, method, path, query, body) {
        Ok(value) => (StatusCode::OK, value.to_string()),
        Err(error) => (
            error.status(),
            json!({ "error": error.to_string() }).to_string(),
        ),
    }
}

fn act(
    control: &Control,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> Result<Value, ControlError> {
    let segments: Vec<&str> = path.split('/').collect();
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["reset"]) => control.reset(),
        ("GET", ["clock"]) => return Ok(clock(control)),
        ("POST", ["clock"]) => {
            set_clock(control, &read(body)?);
            return Ok(clock(control));
        }
        ("PUT", ["latency"]) => {
            let latency: LatencyBody = read(body)?;
            control.set_latency(Duration::from_millis(latency.ms));
        }
        ("GET", ["stats"]) => return Ok(json!(control.stats())),
        ("GET", ["faults"]) => return Ok(json!({ "faults": control.faults() })),
        ("POST", ["faults"]) => {
            return Ok(json!({ "id": control.add_fault(fault(body)?) }));
        }
        ("DELETE", ["faults"]) => control.clear_faults(),
        ("DELETE", ["faults", id]) => {
            if !id.parse().is_ok_and(|id| control.remove_fault(id)) {
                return Err(ControlError::NoSuchFault {
                    id: (*id).to_owned(),
                });
            }
        }
        ("GET", ["apps"]) => return Ok(json!({ "apps": control.appids() })),
        (_, ["apps", appid, rest @ ..]) => {
            return act_on_app(control, method, path, (*appid, rest), query, body);
        }
        _ => {
            return Err(no_such_call(method, path));
        }
    }
    Ok(json!({}))
}

fn act_on_app(
    control: &Control,
    method: &Method,
    path: &str,
    (appid, rest): (&str, &[&str]),
    query: &str,
    body: &[u8],
) -> Result<Value, ControlError> {
    match (method.as_str(), rest) {
        ("GET", []) => {
            let settings = control.app(appid).ok_or_else(|| ControlError::NoSuchApp {
                appid: appid.to_owned(),
            })?;
            return Ok(json!(settings));
        }
        ("PUT", []) => control.put_app(appid, read(body)?),
        ("PATCH", []) => control.put_app(appid, patched(control.app(appid), read(body)?)?),
        ("GET", ["stats"]) => return Ok(json!(control.app_stats(appid))),
        ("GET", ["sent"]) => {
            let most = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("limit=")?.parse().ok())
                .unwrap_or(usize::MAX);
            return Ok(json!({ "sent": control.last_sent(appid, most) }));
        }
        ("DELETE", ["sent"]) => control.clear_sent(appid),
        ("GET", ["duplicates"]) => return Ok(json!(control.duplicates(appid))),
        ("POST", ["grants"]) => {
            for grant in read::<GrantsBody>(body)?.grants {
                match grant.count {
                    0 => control.revoke(appid, &grant.openid, &grant.template_id),
                    count => control.grant(appid, &grant.openid, &grant.template_id, count),
                }
            }
        }
        ("POST", ["form_ids"]) => {
            for form_id in read::<FormIdsBody>(body)?.form_ids {
                control.add_form_id(appid, form_id);
            }
        }
        ("POST", ["users"]) => {
            let users: UsersBody = read(body)?;
            control.add_users(appid, users.openids.iter().map(String::as_str));
        }
        ("POST", ["foreign_fetch"]) => {
            return Ok(json!({ "access_token": control.foreign_fetch(appid) }));
        }
        ("POST", ["push"]) => control.push(appid, read(body)?),
        ("POST", ["kill_tokens"]) => control.kill_tokens(appid),
        _ => return Err(no_such_call(method, path)),
    }
    Ok(json!({}))
}

fn no_such_call(method: &Method, path: &str) -> ControlError {
    ControlError::NoSuchCall {
        method: method.clone(),
        path: path.to_owned(),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    // Parses into `Value` first: otherwise numbers in a tagged type are no numbers, since serde_json keeps the text of
    // each number.
    let value: Value = serde_json::from_slice(body)?;
    Ok(serde_json::from_value(value)?)
}

fn fault(body: &[u8]) -> Result<Fault, ControlError> {
    let value: Value = read(body)?;
    let unknown = value.as_object().and_then(|fields| {
        fields
            .keys()
            .find(|field| !FAULT_FIELDS.contains(&field.as_str()))
    });
    if let Some(field) = unknown {
        return Err(ControlError::FaultField {
            field: field.clone(),
        });
    }
    let fault: Fault = serde_json::from_value(value)?;
    match fault.probability {
        Some(given) if !(0.0..=1.0).contains(&given) => Err(ControlError::Probability { given }),
        _ => Ok(fault),
    }
}

fn clock(control: &Control) -> Value {
    json!({ "now": control.clock().now_ms(), "pinned": control.clock().is_pinned() })
}

fn set_clock(control: &Control, body: &ClockBody) {
    if body.release {
        control.clock().release();
    }
    if let Some(now) = body.now {
        control.clock().pin(now);
    }
    if let Some(seconds) = body.advance_seconds {
        control.clock().advance_ms(seconds.saturating_mul(1_000));
    }
}

/// The settings with some keys replaced; objects such as `limits` are merged key by key, too.
fn patched(settings: Option<AppSettings>, patch: Value) -> Result<AppSettings, ControlError> {
    let mut merged = json!(settings.unwrap_or_default());
    merge(&mut merged, patch);
    Ok(serde_json::from_value(merged)?)
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}
