//! The settings of an endpoint, with the rule of every field.

use std::collections::BTreeSet;

use domain::{
    text,
    violation::Violation,
    webhook::{EventFilter, EventType},
};
use reqwest::Url;
use store::WebhookPatch;

use super::address;

/// The longest URL.
const LONGEST_URL: usize = 2_000;
/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 500;

/// How many events may be named: more than there are.
const MOST_EVENTS: usize = 100;

/// The settings of a new endpoint, or the changes to one. `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct WebhookSettings {
    /// The URL that events are posted to.
    pub url: Option<String>,
    /// The names of the subscribed events, or `*` for all.
    pub events: Option<Vec<String>>,
    /// The owner's description.
    pub description: Option<Option<String>>,
    /// Whether events are sent to the endpoint.
    pub enabled: Option<bool>,
}

impl WebhookSettings {
    /// The checked patch, or all violations.
    pub(super) fn check(&self, allow_private: bool) -> Result<WebhookPatch, Vec<Violation>> {
        let mut found = Vec::new();
        let url = self.url.as_deref().map(|url| read_url(url, allow_private));
        let url = url.transpose().unwrap_or_else(|rule| {
            found.push(Violation::new("/url", rule));
            None
        });
        let events = self
            .events
            .as_deref()
            .map(|words| check_events(words, &mut found));
        if let Some(Some(description)) = &self.description
            && (description.chars().count() > LONGEST_DESCRIPTION
                || description
                    .contains(|c: char| text::is_display_control(c) && !matches!(c, '\n' | '\t')))
        {
            let rule = format!(
                "must have at most {LONGEST_DESCRIPTION} characters, without characters that change the direction of writing and without control characters other than line breaks and tabs"
            );
            found.push(Violation::new("/description", rule));
        }
        if !found.is_empty() {
            return Err(found);
        }
        Ok(WebhookPatch {
            url,
            events,
            description: self.description.clone(),
            enabled: self.enabled,
        })
    }
}

/// A text of what a patch changes. Of a URL only the origin, because the rest may be a secret of its owner.
pub(super) fn changes(patch: &WebhookPatch) -> String {
    let WebhookPatch {
        url,
        events,
        description,
        enabled,
    } = patch;
    let place = |url: &String| {
        let origin = Url::parse(url).map(|url| url.origin().ascii_serialization());
        format!("URL at {}", origin.unwrap_or_default())
    };
    let words = [
        url.as_ref().map(place),
        events.as_ref().map(|events| format!("events {events}")),
        description.as_ref().map(|text| match text {
            Some(_) => "description".to_owned(),
            None => "no description".to_owned(),
        }),
        enabled.map(|enabled| if enabled { "enabled" } else { "disabled" }.to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The URL of an endpoint in the form that is called, or the rule that it breaks. The address behind the name is
/// checked at every post.
fn read_url(text: &str, allow_private: bool) -> Result<String, String> {
    if text.len() > LONGEST_URL {
        return Err(format!("must have at most {LONGEST_URL} characters"));
    }
    // The parser would drop some control characters.
    if text.contains(char::is_control) {
        return Err("must have no control characters".to_owned());
    }
    let url = Url::parse(text)
        .map_err(|error| format!("must be a URL such as https://host/path ({error})"))?;
    let scheme_is_fine = url.scheme() == "https" || allow_private && url.scheme() == "http";
    if !scheme_is_fine {
        return Err("must begin with https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(
            "must have no user, password or fragment: the signature proves the caller's identity"
                .to_owned(),
        );
    }
    let is_local = url
        .host_str()
        .is_some_and(|host| host == "localhost" || host.ends_with(".localhost"));
    let is_private = address::literal(&url).is_some_and(|literal| !address::is_public(literal));
    if !allow_private && (is_local || is_private) {
        return Err(
            "must be reachable from the public internet: private and local addresses are refused"
                .to_owned(),
        );
    }
    let called = String::from(url);
    if called.len() > LONGEST_URL {
        return Err(format!(
            "must have at most {LONGEST_URL} characters in the form that the gateway calls: {called}"
        ));
    }
    Ok(called)
}

/// The events that the words name. Violations go into `found`.
fn check_events(words: &[String], found: &mut Vec<Violation>) -> EventFilter {
    if words.is_empty() {
        let rule = "must name at least one event, or be [\"*\"] for all";
        found.push(Violation::new("/events", rule));
    }
    if words.len() == 1 && words[0] == "*" {
        return EventFilter::All;
    }
    if words.len() > MOST_EVENTS {
        let rule = format!("must name at most {MOST_EVENTS} events, each once");
        found.push(Violation::new("/events", rule));
        return EventFilter::All;
    }
    let mut kinds = BTreeSet::new();
    for (index, word) in words.iter().enumerate() {
        if let Some(kind) = EventType::subscribable().find(|kind| kind.as_str() == word) {
            kinds.insert(kind);
        } else {
            let known: Vec<&str> = EventType::subscribable().map(EventType::as_str).collect();
            let rule = format!("must be one of {}; or `*` alone", known.join(", "));
            found.push(Violation::new(format!("/events/{index}"), rule));
        }
    }
    EventFilter::Only(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_public_and_https() {
        for url in [
            "https://hooks.example/wx?key=1",
            "https://1.1.1.1/",
            "https://hooks.example:8443/",
        ] {
            assert_eq!(read_url(url, false).as_deref(), Ok(url));
        }
        for url in [
            "http://hooks.example/",
            "ftp://hooks.example/",
            "hooks.example",
            "https://user:word@hooks.example/",
            "https://hooks.example/#part",
            "https://localhost/",
            "https://a.localhost/",
            "https://127.1/",
            "https://10.0.0.8/",
            "https://[::1]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://hooks.example/\0",
            "https://hooks.example/a\n",
        ] {
            assert!(read_url(url, false).is_err(), "{url}");
        }
        assert!(read_url("http://127.0.0.1:9/", true).is_ok());
    }

    #[test]
    fn a_description_has_lines_and_no_other_control_characters() {
        let check = |text: &str| {
            let settings = WebhookSettings {
                description: Some(Some(text.to_owned())),
                ..WebhookSettings::default()
            };
            settings.check(false).is_ok()
        };
        assert!(check("two\nlines") && !check("a\0b") && !check("a\x1bb"));
    }

    #[test]
    fn events_are_named_one_by_one_or_all() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let mut found = Vec::new();
            let filter = check_events(&words, &mut found);
            let pointers: Vec<String> = found.into_iter().map(|one| one.pointer).collect();
            (filter.to_string(), pointers)
        };
        assert_eq!(read(&["*"]), ("*".to_owned(), vec![]));
        assert_eq!(
            read(&["message.failed", "message.sent", "message.sent"]).0,
            "message.sent message.failed"
        );
        assert_eq!(read(&[]).1, ["/events"]);
        assert_eq!(read(&["x"; 100]).1.len(), 100);
        assert_eq!(read(&["x"; 101]).1, ["/events"]);
        assert_eq!(
            read(&["message.sent", "*", "webhook.test"]).1,
            ["/events/1", "/events/2"]
        );
    }

    #[test]
    fn what_is_changed_is_told_without_secrets() {
        let patch = WebhookPatch {
            url: Some("https://hooks.example:8443/wx/4711?key=hidden".to_owned()),
            events: Some(EventFilter::All),
            description: Some(None),
            enabled: Some(false),
        };
        assert_eq!(
            changes(&patch),
            "URL at https://hooks.example:8443, events *, no description, disabled"
        );
    }
}
