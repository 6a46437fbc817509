//! Faults: misbehaviour on request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::mix;
use crate::sync::{read, write};

/// One rule of misbehaviour. A call matches if every filter that is set matches; the fault then fires always, for the
/// next `count` matching calls, or with a `probability`. Of the faults that fire for one call, all latencies add up,
/// and of the other effects the first one applies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Only calls of this account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appid: Option<String>,
    /// Only sends to this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openid: Option<String>,
    /// Only this path, such as `/cgi-bin/token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Fires for this part of the matching calls (0 to 1), chosen deterministically from the simulator's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Fires this many times at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What happens to the call.
    #[serde(flatten)]
    pub effect: Effect,
}

/// What a fault does to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// The call acts, and the answer comes later.
    Latency {
        /// The delay in milliseconds.
        ms: u64,
    },
    /// The call does nothing and answers this code.
    Errcode {
        /// The code.
        errcode: i64,
        /// The text before the `rid`; by default WeChat's text for the code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        errmsg: Option<String>,
    },
    /// The call does nothing and answers an HTTP status with HTML, as a proxy in front of WeChat would.
    Status {
        /// Such as 502.
        status: u16,
        /// The page; by default a short one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// The call acts, and then answers an HTTP status with HTML, as a proxy that lost the answer would.
    StatusAfter {
        /// Such as 504.
        status: u16,
    },
    /// The connection breaks, and the call does nothing.
    BreakBefore,
    /// The call acts (the message is sent), then the connection breaks without an answer.
    BreakAfter,
    /// The call acts, and the answer has one of the odd forms that WeChat sometimes uses.
    OddAnswer {
        /// The form.
        shape: Shape,
    },
    /// The answer never comes; the connection stays open.
    Hang {
        /// Whether the call acts.
        #[serde(default)]
        acted: bool,
    },
}

/// Known oddities of WeChat's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `"errcode":"0"` (and `"expires_in":"7200"`).
    StringErrcode,
    /// `Content-Type: text/plain`.
    TextPlain,
    /// Raw control characters inside a JSON string.
    ControlCharacters,
}

impl Shape {
    /// Changes a JSON answer to this form.
    pub(crate) fn dress(self, json: String) -> String {
        match self {
            Self::TextPlain => json,
            Self::StringErrcode => {
                quote_number(&quote_number(&json, "\"errcode\":"), "\"expires_in\":")
            }
            Self::ControlCharacters => json.replacen("\":\"", "\":\"\u{1}\n", 1),
        }
    }
}

fn quote_number(json: &str, key: &str) -> String {
    let Some((before, rest)) = json.split_once(key) else {
        return json.to_owned();
    };
    let end = rest.find([',', '}']).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    format!("{before}{key}\"{number}\"{after}")
}

impl Fault {
    /// A fault for every matching call.
    pub fn always(effect: Effect) -> Self {
        Self {
            appid: None,
            openid: None,
            path: None,
            probability: None,
            count: None,
            effect,
        }
    }

    /// A fault for the next `count` matching calls.
    pub fn next(count: u64, effect: Effect) -> Self {
        Self {
            count: Some(count),
            ..Self::always(effect)
        }
    }

    /// A fault for this part (0 to 1) of the matching calls.
    pub fn sometimes(probability: f64, effect: Effect) -> Self {
        Self {
            probability: Some(probability),
            ..Self::always(effect)
        }
    }

    /// Limits the fault to calls of this account.
    #[must_use]
    pub fn for_app(mut self, appid: impl Into<String>) -> Self {
        self.appid = Some(appid.into());
        self
    }

    /// Limits the fault to sends to this user.
    #[must_use]
    pub fn for_user(mut self, openid: impl Into<String>) -> Self {
        self.openid = Some(openid.into());
        self
    }

    /// Limits the fault to this path.
    #[must_use]
    pub fn for_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
}

/// An active fault, and how often the fault has fired.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultReport {
    /// The fault's number, to remove the fault with.
    pub id: u64,
    /// How often the fault has fired.
    pub fired: u64,
    /// The fault.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What the faults do to one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) delay: Duration,
    /// Never a latency.
    pub(crate) effect: Option<Effect>,
}

#[derive(Debug)]
struct FaultRule {
    id: u64,
    fault: Fault,
    looked: AtomicU64,
    fired: AtomicU64,
}

impl FaultRule {
    fn matches(&self, path: &str, appid: Option<&str>, openid: Option<&str>) -> bool {
        let wants = |filter: &Option<String>, given: Option<&str>| {
            filter.is_none() || filter.as_deref() == given
        };
        wants(&self.fault.path, Some(path))
            && wants(&self.fault.appid, appid)
            && wants(&self.fault.openid, openid)
    }

    fn fires(&self, seed: u64) -> bool {
        if let Some(probability) = self.fault.probability {
            let turn = self.looked.fetch_add(1, Ordering::Relaxed);
            let drawn = mix(seed ^ mix(self.id) ^ turn) >> 32;
            if f64::from(u32::try_from(drawn).unwrap_or(u32::MAX))
                >= probability * f64::from(u32::MAX)
            {
                return false;
            }
        }
        let most = self.fault.count.unwrap_or(u64::MAX);
        self.fired
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |fired| {
                (fired < most).then_some(fired + 1)
            })
            .is_ok()
    }
}

/// The active faults.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    any: AtomicBool,
    serial: AtomicU64,
    rules: RwLock<Vec<Arc<FaultRule>>>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            any: AtomicBool::new(false),
            serial: AtomicU64::new(1),
            rules: RwLock::new(Vec::new()),
        }
    }

    /// Adds a fault after the present ones, and returns the fault's number.
    pub(crate) fn add(&self, fault: Fault) -> u64 {
        let id = self.serial.fetch_add(1, Ordering::Relaxed);
        let rule = FaultRule {
            id,
            fault,
            looked: AtomicU64::new(0),
            fired: AtomicU64::new(0),
        };
        write(&self.rules).push(Arc::new(rule));
        self.any.store(true, Ordering::Release);
        id
    }

    /// Removes one fault; false if no fault has this number.
    pub(crate) fn remove(&self, id: u64) -> bool {
        let mut rules = write(&self.rules);
        let before = rules.len();
        rules.retain(|rule| rule.id != id);
        self.any.store(!rules.is_empty(), Ordering::Release);
        rules.len() < before
    }

    /// Removes all faults.
    pub(crate) fn clear(&self) {
        write(&self.rules).clear();
        self.any.store(false, Ordering::Release);
    }

    /// All active faults.
    pub(crate) fn report(&self) -> Vec<FaultReport> {
        read(&self.rules)
            .iter()
            .map(|rule| FaultReport {
                id: rule.id,
                fired: rule.fired.load(Ordering::Relaxed),
                fault: rule.fault.clone(),
            })
            .collect()
    }

    /// What the faults do to a call. Without faults this costs one atomic load.
    pub(crate) fn plan(&self, path: &str, appid: Option<&str>, openid: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        if !self.any.load(Ordering::Acquire) {
            return plan;
        }
        for rule in read(&self.rules).iter() {
            let latency = match rule.fault.effect {
                Effect::Latency { ms } => Some(Duration::from_millis(ms)),
                _ if plan.effect.is_some() => continue,
                _ => None,
            };
            if !rule.matches(path, appid, openid) || !rule.fires(self.seed) {
                continue;
            }
            match latency {
                Some(latency) => plan.delay += latency,
                None => plan.effect = Some(rule.fault.effect.clone()),
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_fires_for_the_next_matching_calls_only() {
        let faults = Faults::new(1);
        let id = faults.add(
            Fault::next(2, Effect::BreakBefore)
                .for_app("a")
                .for_path("/p"),
        );
        assert_eq!(faults.plan("/q", Some("a"), None), Plan::default());
        assert_eq!(faults.plan("/p", None, None), Plan::default());
        for _ in 0..2 {
            assert_eq!(
                faults.plan("/p", Some("a"), None).effect,
                Some(Effect::BreakBefore)
            );
        }
        assert_eq!(faults.plan("/p", Some("a"), None), Plan::default());
        assert_eq!(faults.report()[0].fired, 2);
        assert!(faults.remove(id) && !faults.remove(id));
    }

    #[test]
    fn a_probability_draws_the_same_for_the_same_seed() {
        let draw = |seed| {
            let faults = Faults::new(seed);
            faults.add(Fault::sometimes(0.3, Effect::BreakAfter));
            (0..1_000)
                .map(|_| faults.plan("/p", None, None).effect.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let fired = draw(7).into_iter().filter(|fired| *fired).count();
        assert!((250..350).contains(&fired), "{fired}");
    }

    #[test]
    fn latencies_add_up_beside_another_effect() {
        let faults = Faults::new(1);
        faults.add(Fault::always(Effect::Latency { ms: 5 }));
        faults.add(Fault::always(Effect::BreakAfter));
        faults.add(Fault::next(1, Effect::BreakBefore));
        faults.add(Fault::always(Effect::Latency { ms: 6 }));
        let plan = faults.plan("/p", None, None);
        assert_eq!(
            (plan.delay, plan.effect),
            (Duration::from_millis(11), Some(Effect::BreakAfter))
        );
        assert_eq!(
            faults.report()[2].fired,
            0,
            "a fault that lost keeps its count"
        );
    }

    #[test]
    fn faults_are_written_flat() {
        let fault: Fault = serde_json::from_str(
            r#"{"kind":"errcode","errcode":-1,"path":"/cgi-bin/token","count":3}"#,
        )
        .unwrap();
        let effect = Effect::Errcode {
            errcode: -1,
            errmsg: None,
        };
        assert_eq!(fault, Fault::next(3, effect).for_path("/cgi-bin/token"));
        let shape: Fault =
            serde_json::from_str(r#"{"kind":"odd_answer","shape":"text_plain"}"#).unwrap();
        assert_eq!(
            shape.effect,
            Effect::OddAnswer {
                shape: Shape::TextPlain
            }
        );
    }

    #[test]
    fn odd_answers() {
        let json = r#"{"errcode":0,"errmsg":"ok","msgid":1}"#.to_owned();
        assert_eq!(
            Shape::StringErrcode.dress(json.clone()),
            r#"{"errcode":"0","errmsg":"ok","msgid":1}"#
        );
        assert!(
            serde_json::from_str::<serde_json::Value>(&Shape::ControlCharacters.dress(json))
                .is_err()
        );
    }
}
