//! What would break a client of the last release: found by comparing its document with the present one.
//!
//! A client may send what the client sent before, and finds in answers what the client found before. So requests may
//! only become wider, and answers only narrower. New words of an enumeration in an answer break nothing: clients must
//! expect unknown words.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The limits of a value, and whether a larger number is the stricter one.
const BOUNDS: [(&str, bool); 8] = [
    ("minimum", true),
    ("maximum", false),
    ("minLength", true),
    ("maxLength", false),
    ("minItems", true),
    ("maxItems", false),
    ("minProperties", true),
    ("maxProperties", false),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From the client.
    Request,
    /// To the client.
    Answer,
}

/// Everything in `new` that would break a client of `old`, each in a sentence.
pub(crate) fn between(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        old,
        new,
        found: Vec::new(),
        seen: BTreeSet::new(),
    };
    for (path, item) in members(&old["paths"]) {
        for (method, operation) in members(item) {
            let place = format!("{} {path}", method.to_uppercase());
            comparison.operation(&place, operation, &new["paths"][path][method]);
        }
    }
    comparison.found
}

struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
    /// Pairs of schemas that were compared, by name.
    seen: BTreeSet<(String, String, Way)>,
}

impl<'a> Comparison<'a> {
    fn report(&mut self, place: &str, what: &str) {
        self.found.push(format!("{place}: {what}"));
    }

    fn operation(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        if new.is_null() {
            return self.report(place, "is gone");
        }
        for member in ["operationId", "security"] {
            if old[member] != new[member] {
                let what = format!("{member} was {} and is {}", old[member], new[member]);
                self.report(place, &what);
            }
        }
        self.parameters(place, &old["parameters"], &new["parameters"]);
        self.body(place, &old["requestBody"], &new["requestBody"]);
        for (status, old) in members(&old["responses"]) {
            if !status.starts_with('2') {
                continue;
            }
            let place = format!("{place} {status}");
            let (old, new) = (
                self.resolve_old(old),
                self.resolve_new(&new["responses"][status]),
            );
            if new.is_null() {
                self.report(&place, "is gone");
            } else {
                self.contents(&place, &old["content"], &new["content"], Way::Answer);
            }
        }
    }

    fn parameters(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let name = |one: &Value| format!("{} {}", text(&one["in"]), text(&one["name"]));
        let named = |all: &'a Value, wanted: &str| items(all).find(|one| name(one) == wanted);
        for one in items(old) {
            match named(new, &name(one)) {
                None => self.report(place, &format!("the parameter {} is gone", name(one))),
                Some(other) => {
                    let place = format!("{place} {}", name(one));
                    self.schema(&place, &one["schema"], &other["schema"], Way::Request);
                }
            }
        }
        for one in items(new).filter(|one| one["required"] == true) {
            if named(old, &name(one)).is_none_or(|before| before["required"] != true) {
                self.report(
                    place,
                    &format!("the parameter {} is required now", name(one)),
                );
            }
        }
    }

    fn body(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        if new["required"] == true && old["required"] != true {
            self.report(place, "a body is required now");
        }
        self.contents(place, &old["content"], &new["content"], Way::Request);
    }

    fn contents(&mut self, place: &str, old: &'a Value, new: &'a Value, way: Way) {
        for (media, content) in members(old) {
            if new[media].is_null() {
                self.report(place, &format!("{media} is gone"));
            } else {
                self.schema(place, &content["schema"], &new[media]["schema"], way);
            }
        }
    }

    fn schema(&mut self, place: &str, old: &'a Value, new: &'a Value, way: Way) {
        if let (Some(before), Some(now)) = (old["$ref"].as_str(), new["$ref"].as_str())
            && !self.seen.insert((before.to_owned(), now.to_owned(), way))
        {
            return;
        }
        let (old, new) = (self.resolve_old(old), self.resolve_new(new));
        self.types(place, old, new, way);
        if way == Way::Request {
            self.words(place, old, new);
            self.bounds(place, old, new);
        }
        self.properties(place, old, new, way);
        for inner in ["items", "additionalProperties"] {
            if old[inner].is_object() && new[inner].is_object() {
                self.schema(&format!("{place}/*"), &old[inner], &new[inner], way);
            }
        }
        // In this document the order of alternatives stays, and new alternatives come last.
        let forms = |schema: &'a Value| items(&schema["oneOf"]).collect::<Vec<_>>();
        let (before, now) = (forms(old), forms(new));
        if before.len() > now.len() {
            self.report(place, "an alternative is gone");
        }
        for (before, now) in before.into_iter().zip(now) {
            self.schema(place, before, now, way);
        }
    }

    fn types(&mut self, place: &str, old: &Value, new: &Value, way: Way) {
        let (before, now) = (types(old), types(new));
        let fine = match way {
            _ if before == now => true,
            Way::Request => now.is_empty() || !before.is_empty() && before.is_subset(&now),
            Way::Answer => before.is_empty() || !now.is_empty() && now.is_subset(&before),
        };
        if !fine {
            self.report(place, &format!("was of type {before:?} and is of {now:?}"));
        }
    }

    fn words(&mut self, place: &str, old: &Value, new: &Value) {
        let now: Vec<&Value> = items(&new["enum"]).collect();
        if now.is_empty() {
            return;
        }
        if old["enum"].is_null() {
            self.report(place, "takes certain words alone now");
        }
        for word in items(&old["enum"]).filter(|word| !now.contains(word)) {
            self.report(place, &format!("no longer takes {word}"));
        }
    }

    fn bounds(&mut self, place: &str, old: &Value, new: &Value) {
        for (name, larger_is_stricter) in BOUNDS {
            let Some(now) = new[name].as_f64() else {
                continue;
            };
            let stricter = old[name].as_f64().is_none_or(|before| {
                if larger_is_stricter {
                    now > before
                } else {
                    now < before
                }
            });
            if stricter {
                self.report(place, &format!("{name} was {} and is {now}", old[name]));
            }
        }
    }

    fn properties(&mut self, place: &str, old: &'a Value, new: &'a Value, way: Way) {
        let required =
            |schema: &Value, name: &str| items(&schema["required"]).any(|one| one == name);
        for (name, property) in members(&old["properties"]) {
            let inner = format!("{place}/{name}");
            let now = &new["properties"][name];
            if now.is_null() {
                self.report(&inner, "is gone");
                continue;
            }
            if way == Way::Answer && required(old, name) && !required(new, name) {
                self.report(&inner, "may be absent now");
            }
            self.schema(&inner, property, now, way);
        }
        if way == Way::Request {
            for name in items(&new["required"]).map(text) {
                if !required(old, name) {
                    self.report(&format!("{place}/{name}"), "is required now");
                }
            }
        }
    }

    fn resolve_old(&self, value: &'a Value) -> &'a Value {
        resolve(self.old, value)
    }

    fn resolve_new(&self, value: &'a Value) -> &'a Value {
        resolve(self.new, value)
    }
}

/// The target of a reference.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"]
        .as_str()
        .and_then(|place| place.strip_prefix('#'))
    {
        Some(place) => document
            .pointer(place)
            .expect("a reference that leads somewhere"),
        None => value,
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn types(schema: &Value) -> BTreeSet<&str> {
    match &schema["type"] {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        several => items(several).map(text).collect(),
    }
}
