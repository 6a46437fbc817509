//! The request for a message, and the check that makes a request a [`Draft`].

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{
    Channel, Content, DEFAULT_TTL, Draft, Lang, MAX_SCHEDULE, MAX_TTL, MiniprogramLink,
    MiniprogramState, OnTooLong, OnUncertain, Priority,
};
use crate::{
    app::ValueRules,
    grant::{self, GrantPolicy},
    template::{self, Knowledge},
    template_value, text,
    violation::{Violation, pointer_token},
};

mod convert;
mod page;

/// The fields of one value of a template.
pub const DATA_MEMBERS: [&str; 2] = ["value", "color"];

const MAX_ID: usize = 128;
const MAX_PAGE: usize = 1024;
const MAX_REFERENCE: usize = 255;
const MAX_METADATA_BYTES: usize = 4096;
const MAX_DATA_KEYS: usize = 50;
const MAX_DATA_BYTES: usize = 8192;

/// The request for a message, before the check. [`Request::check`] fills absent fields with the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    missing_docs,
    reason = "the fields are those of the public API, described there and on `Draft` and `Content`"
)]
pub struct Request {
    pub channel: Channel,
    pub touser: String,
    pub template_id: String,
    pub data: Option<Map<String, Value>>,
    pub page: Option<String>,
    pub miniprogram_state: Option<MiniprogramState>,
    pub lang: Option<Lang>,
    pub form_id: Option<String>,
    pub emphasis_keyword: Option<String>,
    pub url: Option<String>,
    pub miniprogram: Option<MiniprogramLink>,
    pub client_msg_id: Option<String>,
    pub priority: Priority,
    pub send_at: Option<DateTime<Utc>>,
    pub ttl: Option<u64>,
    pub reference: Option<String>,
    pub metadata: Option<Map<String, Value>>,
    pub on_uncertain: OnUncertain,
    pub on_too_long: OnTooLong,
    pub grant_policy: Option<GrantPolicy>,
    pub dry_run: bool,
}

/// Why a request is not a valid message.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfit {
    /// All violations.
    pub violations: Vec<Violation>,
    /// The message that the request makes if the check ignores the template. The gateway may have accepted this message
    /// before the template changed.
    pub otherwise: Option<Box<Draft>>,
}

impl Request {
    /// As [`Request::check_against`], for an unknown template.
    pub fn check(self, now: DateTime<Utc>) -> Result<Draft, Vec<Violation>> {
        self.check_against(now, Knowledge::Nothing, ValueRules::Strict)
            .map_err(|unfit| unfit.violations)
    }

    /// Checks every field, and checks the values against the known template and by the app's rules. Returns all
    /// violations at once.
    pub fn check_against(
        mut self,
        now: DateTime<Utc>,
        template: Knowledge<'_>,
        rules: ValueRules,
    ) -> Result<Draft, Unfit> {
        self.cut_values();
        let mut warnings = self.convert();
        let mut broken_types = Vec::new();
        let mut violations = self.broken_rules(now, rules, &mut broken_types);
        warnings.extend(broken_types);
        let is_message = violations.is_empty();
        // Data with too many keys or bytes would cause as many violations.
        let data = self.data.as_ref().filter(|data| excess(data).is_none());
        template.judge(data, &mut violations);
        match (is_message, violations.is_empty()) {
            (true, true) => Ok(self.into_draft(warnings)),
            (true, false) => Err(Unfit {
                violations,
                otherwise: Some(Box::new(self.into_draft(warnings))),
            }),
            (false, _) => Err(Unfit {
                violations,
                otherwise: None,
            }),
        }
    }

    /// Shortens the values that may be cut.
    fn cut_values(&mut self) {
        if self.on_too_long == OnTooLong::Reject || self.channel == Channel::Template {
            return;
        }
        for (key, item) in self.data.iter_mut().flatten() {
            let Some(value) = item.get_mut("value") else {
                continue;
            };
            let cut =
                template::text_of(value).and_then(|text| template_value::truncated(key, &text));
            if let Some(cut) = cut {
                *value = Value::String(cut);
            }
        }
    }

    /// The violations that do not depend on the template.
    fn broken_rules(
        &self,
        now: DateTime<Utc>,
        rules: ValueRules,
        warnings: &mut Vec<String>,
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        required_id(&self.touser, "/touser", "the receiver's openid", &mut found);
        required_id(
            &self.template_id,
            "/template_id",
            "the template's id in the account",
            &mut found,
        );
        check_foreign_fields(self, &mut found);
        let (channel, data) = (self.channel, self.data.as_ref());
        check_data(channel, data, &mut found);
        check_types(channel, data, (rules, warnings), &mut found);
        check_lengths(self, &mut found);
        check_pages(self, &mut found);
        check_times(self, now, &mut found);
        let form_id = self.form_id.as_deref().filter(|id| !id.is_empty());
        if let Some(why) = form_id.and_then(grant::invalid_id_reason) {
            found.push(Violation::new("/form_id", why));
        }
        found
    }

    /// The message of a request without violations.
    fn into_draft(self, warnings: Vec<String>) -> Draft {
        let data = self.data.unwrap_or_default();
        let content = match self.channel {
            Channel::Subscribe => Content::Subscribe {
                data,
                page: self.page,
                miniprogram_state: self.miniprogram_state.unwrap_or_default(),
                lang: self.lang.unwrap_or_default(),
            },
            Channel::Template => Content::Template {
                data,
                page: self.page,
                form_id: self.form_id,
                emphasis_keyword: self.emphasis_keyword,
            },
            Channel::Official => Content::Official {
                data,
                url: self.url,
                miniprogram: self.miniprogram,
                client_msg_id: self.client_msg_id,
            },
        };
        Draft {
            touser: self.touser,
            template_id: self.template_id,
            content,
            priority: self.priority,
            send_at: self.send_at,
            ttl: self.ttl.map_or(DEFAULT_TTL, Duration::from_secs),
            reference: self.reference,
            metadata: self.metadata,
            on_uncertain: self.on_uncertain,
            grant_policy: self.grant_policy,
            dry_run: self.dry_run,
            warnings,
        }
    }
}

fn required_id(value: &str, pointer: &str, what: &str, found: &mut Vec<Violation>) {
    if value.is_empty()
        || value.len() > MAX_ID
        || value.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        found.push(Violation::new(
            pointer,
            format!("must be {what}: 1 to {MAX_ID} characters without blanks"),
        ));
    }
}

/// Refuses a field that belongs to another channel, because the gateway would otherwise drop the field silently.
fn check_foreign_fields(request: &Request, found: &mut Vec<Violation>) {
    use Channel::{Official, Subscribe, Template};
    let mut only = |present: bool, channels: &[Channel], pointer: &str, names: &str| {
        if present && !channels.contains(&request.channel) {
            found.push(Violation::new(
                pointer,
                format!("belongs to {names}, not to the channel of this message"),
            ));
        }
    };
    only(
        request.page.is_some(),
        &[Subscribe, Template],
        "/page",
        "channels `subscribe` and `template`",
    );
    only(
        request.miniprogram_state.is_some(),
        &[Subscribe],
        "/miniprogram_state",
        "channel `subscribe`",
    );
    only(
        request.lang.is_some(),
        &[Subscribe],
        "/lang",
        "channel `subscribe`",
    );
    only(
        request.form_id.is_some(),
        &[Template],
        "/form_id",
        "channel `template`",
    );
    only(
        request.grant_policy.is_some(),
        &[Subscribe],
        "/grant_policy",
        "channel `subscribe`",
    );
    only(
        request.emphasis_keyword.is_some(),
        &[Template],
        "/emphasis_keyword",
        "channel `template`",
    );
    only(
        request.url.is_some(),
        &[Official],
        "/url",
        "channel `official`",
    );
    only(
        request.miniprogram.is_some(),
        &[Official],
        "/miniprogram",
        "channel `official`",
    );
    only(
        request.client_msg_id.is_some(),
        &[Official],
        "/client_msg_id",
        "channel `official`",
    );
}

fn check_data(channel: Channel, data: Option<&Map<String, Value>>, found: &mut Vec<Violation>) {
    let data = match data {
        Some(data) => data,
        // A template message of the older interface may have no data: WeChat sends an empty card.
        None if channel == Channel::Template => return,
        None => {
            found.push(Violation::new(
                "/data",
                "required: the template's values, such as {\"thing1\": {\"value\": \"…\"}}",
            ));
            return;
        }
    };
    if data.is_empty() && channel != Channel::Template {
        found.push(Violation::new(
            "/data",
            "must name at least one key of the template",
        ));
    }
    if let Some(rule) = excess(data) {
        found.push(Violation::new("/data", rule));
        return;
    }
    for (key, item) in data {
        let pointer = format!("/data/{}", pointer_token(key));
        let Some(value) = item.get("value") else {
            found.push(Violation::new(
                pointer,
                "must be an object with a `value`, such as {\"value\": \"…\"}",
            ));
            continue;
        };
        for member in item.as_object().into_iter().flat_map(Map::keys) {
            if !DATA_MEMBERS.contains(&member.as_str()) {
                found.push(Violation::new(
                    format!("{pointer}/{}", pointer_token(member)),
                    "is not known: the known names are `value` and `color`",
                ));
            }
        }
        if item.get("color").is_some_and(|color| !color.is_string()) {
            found.push(Violation::new(
                format!("{pointer}/color"),
                "must be a string, such as #173177, or be left out",
            ));
        }
        let Some(text) = template::text_of(value) else {
            found.push(Violation::new(
                format!("{pointer}/value"),
                "must be a string or a number",
            ));
            continue;
        };
        // The text of the number is ambiguous: the parser reads `1e5` and `1E+5` alike.
        if value.is_number() && text.contains('e') {
            found.push(Violation::new(
                format!("{pointer}/value"),
                "must be a string, or a number that is written without an exponent",
            ));
        }
    }
}

/// Checks the values by the rules of their types. With lenient `rules`, violations go to `warnings` instead of `found`.
fn check_types(
    channel: Channel,
    data: Option<&Map<String, Value>>,
    (rules, warnings): (ValueRules, &mut Vec<String>),
    found: &mut Vec<Violation>,
) {
    // Values of form-id templates have no types: the keys are keyword1, keyword2 …
    let typed = data.filter(|data| channel != Channel::Template && excess(data).is_none());
    for (key, item) in typed.into_iter().flatten() {
        let Some(text) = item.get("value").and_then(template::text_of) else {
            continue;
        };
        let pointer = format!("/data/{}/value", pointer_token(key));
        match template_value::check(key, &text) {
            Err(rule) if rules == ValueRules::Warn && rule.is_of_type() => warnings.push(format!(
                "{pointer} is sent unchanged, but {rule}: WeChat refuses the value unless WeChat's rules for this \
                account are weaker"
            )),
            Err(rule) => found.push(Violation::new(pointer, rule.to_string())),
            Ok(()) => {}
        }
    }
}

/// The violated size limit of `data`, if the data exceeds a limit. The caller then need not check the content.
fn excess(data: &Map<String, Value>) -> Option<String> {
    if data.len() > MAX_DATA_KEYS {
        Some(format!("must have at most {MAX_DATA_KEYS} keys"))
    } else if is_longer(data, MAX_DATA_BYTES) {
        Some(format!("must be at most {MAX_DATA_BYTES} bytes as JSON"))
    } else {
        None
    }
}

fn is_longer(map: &Map<String, Value>, max: usize) -> bool {
    serde_json::to_vec(map).is_ok_and(|json| json.len() > max)
}

fn check_lengths(request: &Request, found: &mut Vec<Violation>) {
    let mut at_most = |value: Option<&str>, max: usize, pointer: &str| {
        if let Some(value) = value
            && (value.is_empty() || value.len() > max || value.contains(text::is_display_control))
        {
            found.push(Violation::new(
                pointer,
                format!("must have 1 to {max} bytes without control characters, or be left out"),
            ));
        }
    };
    at_most(request.page.as_deref(), MAX_PAGE, "/page");
    at_most(request.form_id.as_deref(), MAX_ID, "/form_id");
    at_most(
        request.emphasis_keyword.as_deref(),
        MAX_ID,
        "/emphasis_keyword",
    );
    at_most(request.url.as_deref(), MAX_PAGE, "/url");
    at_most(request.client_msg_id.as_deref(), 32, "/client_msg_id");
    at_most(request.reference.as_deref(), MAX_REFERENCE, "/reference");
    let metadata = request.metadata.as_ref();
    if metadata.is_some_and(|metadata| is_longer(metadata, MAX_METADATA_BYTES)) {
        found.push(Violation::new(
            "/metadata",
            format!("must be at most {MAX_METADATA_BYTES} bytes as JSON"),
        ));
    }
}

fn check_pages(request: &Request, found: &mut Vec<Violation>) {
    let linked = request.miniprogram.as_ref();
    let pagepath = linked.and_then(|link| link.pagepath.as_deref());
    for (page, pointer) in [
        (request.page.as_deref(), "/page"),
        (pagepath, "/miniprogram/pagepath"),
    ] {
        let fault = page.filter(|page| !page.is_empty()).and_then(page::fault);
        found.extend(fault.map(|rule| Violation::new(pointer, rule)));
    }
}

fn check_times(request: &Request, now: DateTime<Utc>, found: &mut Vec<Violation>) {
    if request
        .ttl
        .is_some_and(|ttl| ttl == 0 || ttl > MAX_TTL.as_secs())
    {
        found.push(Violation::new(
            "/ttl",
            format!("must be 1 to {} seconds", MAX_TTL.as_secs()),
        ));
    }
    if let Some(send_at) = request.send_at
        && !(now - MAX_TTL..=now + MAX_SCHEDULE).contains(&send_at)
    {
        found.push(Violation::new(
            "/send_at",
            "must be within the next 30 days, or at most 7 days ago: leave out this field to send at once",
        ));
    }
}

#[cfg(test)]
mod tests;
