//! Rewrites values of a request into WeChat's form before the check, with a warning about each change.

use chrono::DateTime;
use serde_json::{Map, Value};

use super::{Request, page};
use crate::{grant, message::Channel, template_value, violation::pointer_token};

impl Request {
    /// Rewrites values that break a rule of WeChat and can have only one meaning. Returns a warning with the JSON
    /// pointer for each change.
    pub(super) fn convert(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        // As the database stores times: in milliseconds, and a leap second as the following second.
        self.send_at = self.send_at.map(|send_at| {
            DateTime::from_timestamp_millis(send_at.timestamp_millis()).unwrap_or(send_at)
        });
        if let Some(data) = &mut self.data
            && super::excess(data).is_none()
        {
            drop_withdrawn(self.channel, data, &mut warnings);
            if self.channel != Channel::Template {
                convert_values(data, &mut warnings);
            }
        }
        let linked = self.miniprogram.as_mut();
        let pagepath = linked.and_then(|link| link.pagepath.as_mut());
        for (page, pointer) in [
            (self.page.as_mut(), "/page"),
            (pagepath, "/miniprogram/pagepath"),
        ] {
            if let Some(page) = page
                && let Some(bare) = page::without_slash(page)
            {
                warnings.push(format!(
                    "{pointer} is sent as {bare}: WeChat accepts no slash at the start of a page"
                ));
                *page = bare.to_owned();
            }
        }
        if let Some(id) = &mut self.form_id
            && let Some(bare) = grant::bare_prepay_id(id)
        {
            warnings.push(format!(
                "/form_id is sent as {bare}: the prefix `prepay_id=` is not part of the id"
            ));
            *id = bare.to_owned();
        }
        warnings
    }
}

/// Removes `first` and `remark` without text from a message of an official account: WeChat withdrew both fields in
/// 2023.
fn drop_withdrawn(channel: Channel, data: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    if channel != Channel::Official {
        return;
    }
    for key in ["first", "remark"] {
        let has_no_text = data.get(key).is_some_and(|item| match item.get("value") {
            None => item.is_object() || item.is_null(),
            Some(value) => value.is_null() || value.as_str().is_some_and(template_value::is_blank),
        });
        if has_no_text {
            data.remove(key);
            warnings.push(format!(
                "/data/{key} is left out: the value has no text, and WeChat no longer shows this key"
            ));
        }
    }
}

fn convert_values(data: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    for (key, item) in data {
        let Some(Value::String(text)) = item.get_mut("value") else {
            continue;
        };
        if let Some(form) = template_value::converted(key, text) {
            warnings.push(format!(
                "/data/{}/value is sent as {form}: WeChat accepts only this form",
                pointer_token(key)
            ));
            *text = form;
        }
    }
}
