//! Two tenants do ten thousand operations at once, chosen at random, and try to reach each other's data: neither tenant
//! ever sees a byte of the other's data.
//!
//! Everything that a tenant names carries the marker of that tenant, and every id belongs to the tenant that saw the id
//! first. Neither marker nor id may appear in the other tenant's answers, in a body or in a header.
//! `WXGATE_TEST_SEED=n` repeats the choices of a run.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use coord::Clock;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    drop_in::wechat_token,
    webhooks::receiver::Receiver,
    world::{Answer, Mode, SECRET, Tenant, World, finish, id, message_with},
};

const OPERATIONS: usize = 10_000;
/// Half of the callers belong to one tenant, half to the other.
const CALLERS: usize = 16;
const MARKERS: [&str; 2] = ["qMarkerTea", "zMarkerInk"];
const APPS: [[&str; 2]; 2] = [
    ["wx00000000000000a1", "wx00000000000000a2"],
    ["wx00000000000000b1", "wx00000000000000b2"],
];
/// The prefixes of ids.
const KINDS: [&str; 5] = ["msg_", "key_", "whk_", "evt_", "ten_"];

/// The lists, by a part of the path.
const LISTS: [&str; 5] = [
    "/messages?",
    "/deliveries?",
    "/v1/apps?",
    "/v1/keys?",
    "/v1/audit?",
];

both_modes!(neither_tenant_sees_data_of_the_other);

/// A sequence of random choices; the same seed gives the same sequence.
struct Dice(u64);

impl Dice {
    /// `SplitMix64`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((bits ^ (bits >> 31)) % sides as u64).expect("a small number")
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }
}

/// The ids and cursors that answers have shown, and the tenant that owns each.
#[derive(Default)]
struct Known {
    owners: HashMap<String, usize>,
    /// By kind and tenant.
    ids: HashMap<(&'static str, usize), Vec<String>>,
    /// By list and tenant.
    cursors: HashMap<(&'static str, usize), Vec<String>>,
}

/// A method, a path and a body.
type Choice = (Method, String, Value);

struct Street {
    tenants: [Tenant; 2],
    hooks: [String; 2],
    /// One webhook of each tenant that no operation deletes.
    lasting: [String; 2],
    wechat_tokens: [String; 2],
    known: Mutex<Known>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the seed of a test is no setting of the product"
)]
fn seed() -> u64 {
    let wanted = std::env::var("WXGATE_TEST_SEED").ok();
    let wanted = wanted.and_then(|seed| seed.parse().ok());
    wanted.unwrap_or_else(|| u64::from(Clock::system().now().timestamp_subsec_nanos()))
}

async fn neither_tenant_sees_data_of_the_other(mode: Mode) {
    let seed = seed();
    eprintln!("WXGATE_TEST_SEED={seed}");
    let world = World::start(mode).await;
    // Two callers use the same idempotency keys and repeat sends at the same time, so WeChat gets copies.
    world.expect_copies();
    let ears = [Receiver::start().await, Receiver::start().await];
    let tenants = [
        world.tenant(MARKERS[0]).await,
        world.tenant(MARKERS[1]).await,
    ];
    let mut wechat_tokens = Vec::new();
    for (whose, tenant) in tenants.iter().enumerate() {
        for appid in APPS[whose] {
            let name = json!({"name": MARKERS[whose]});
            tenant.app_with(appid, name).await;
        }
        wechat_tokens.push(wechat_token(&tenant.client, APPS[whose][0]).await);
    }
    let hooks = [0, 1].map(|whose| format!("{}/{}", ears[whose].url, MARKERS[whose]));
    let mut lasting = Vec::new();
    for (whose, tenant) in tenants.iter().enumerate() {
        let hook = json!({"url": hooks[whose], "events": ["*"]});
        let answer = tenant.client.post("/v1/webhooks", &hook).await;
        lasting.push(answer.expect(201));
    }
    let street = Arc::new(Street {
        hooks,
        lasting: [0, 1].map(|whose| id(&lasting[whose]).to_owned()),
        tenants,
        wechat_tokens: wechat_tokens.try_into().expect("two"),
        known: Mutex::default(),
    });
    for (whose, answer) in lasting.iter().enumerate() {
        street.check(whose, "the first webhook", &answer.to_string());
    }
    let began = Instant::now();
    let callers = (0..CALLERS).map(|number| {
        let street = Arc::clone(&street);
        let caller = async move {
            let mut dice = Dice(seed.wrapping_add(number as u64));
            for _ in 0..OPERATIONS / CALLERS {
                street.act(number % 2, &mut dice).await;
            }
        };
        tokio::task::JoinSet::from_iter([caller])
    });
    for caller in join_all(callers.map(tokio::task::JoinSet::join_all)).await {
        assert_eq!(caller.len(), 1);
    }
    eprintln!("{OPERATIONS} operations in {:?}", began.elapsed());

    for (whose, ear) in ears.iter().enumerate() {
        let heard = ear.heard();
        assert!(!heard.is_empty(), "webhooks were to be told something");
        for one in heard {
            let text = format!("{:?} {}", one.headers, String::from_utf8_lossy(&one.body));
            street.check(whose, "a webhook", &text);
        }
    }
    // The test has tested something: both tenants have many ids and cursors, and each tenant has only its own.
    let known = street.known();
    for whose in [0, 1] {
        for kind in ["msg_", "key_", "whk_", "evt_"] {
            let ids = known.ids.get(&(kind, whose)).map_or(0, Vec::len);
            assert!(ids > 10, "{} has {ids} of {kind}", MARKERS[whose]);
        }
        for list in LISTS.into_iter().filter(|list| *list != "/deliveries?") {
            let cursors = known.cursors.get(&(list, whose)).map_or(0, Vec::len);
            assert!(cursors > 3, "{} has {cursors} of {list}", MARKERS[whose]);
        }
    }
}

impl Street {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id of this kind that belongs to this tenant.
    fn some_id(&self, whose: usize, kind: &'static str, dice: &mut Dice) -> String {
        let known = self.known();
        let ids = known.ids.get(&(kind, whose)).map_or(&[][..], Vec::as_slice);
        match ids.len() {
            0 => format!("{kind}01jq2xv1cde8sbw7mv9v6a5kzq"),
            // The latest ids most often still exist.
            count => ids[count - 1 - dice.roll(count.min(50))].clone(),
        }
    }

    /// A cursor of a list of this tenant, as the end of a query; empty for the first page.
    fn some_cursor(&self, whose: usize, list: &'static str, dice: &mut Dice) -> String {
        let known = self.known();
        let cursors = known.cursors.get(&(list, whose));
        let cursors = cursors.map_or(&[][..], Vec::as_slice);
        // Every second request begins with the newest item, because otherwise all cursors would soon be at the end of a
        // list.
        if cursors.is_empty() || dice.roll(2) == 0 {
            return String::new();
        }
        format!("&cursor={}", cursors[dice.roll(cursors.len())])
    }

    /// Panics if `text`, shown to tenant `whose`, holds data of the other tenant. `asked` is the request, with the
    /// names that the caller knew already.
    #[track_caller]
    fn check(&self, whose: usize, asked: &str, text: &str) {
        let other = 1 - whose;
        let foreign = APPS[other].iter().chain([&MARKERS[other]]);
        for word in foreign.filter(|word| !asked.contains(**word)) {
            assert!(!text.contains(word), "{asked} shows {word}: {text}");
        }
        let mut known = self.known();
        for kind in KINDS {
            for (at, _) in text.match_indices(kind) {
                let Some(id) = text.get(at..at + kind.len() + 26) else {
                    continue;
                };
                let mut suffix = id[kind.len()..].bytes();
                let is_id = suffix.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
                if !is_id || asked.contains(id) {
                    continue;
                }
                let owner = *known.owners.entry(id.to_owned()).or_insert_with(|| whose);
                assert_eq!(owner, whose, "{asked} shows the other's {id}: {text}");
                let ids = known.ids.entry((kind, whose)).or_default();
                if ids.last().is_none_or(|last| last != id) {
                    ids.push(id.to_owned());
                }
            }
        }
    }

    /// Makes one operation and checks the answer.
    async fn act(&self, whose: usize, dice: &mut Dice) {
        let at_home = dice.roll(2) == 0;
        let target = if at_home { whose } else { 1 - whose };
        let (method, path, body) = self.choose(whose, target, dice);
        let client = &self.tenants[whose].client;
        let is_wechats = path.starts_with("/cgi-bin") || path.starts_with("/wxa");
        let mut request = if is_wechats {
            client.bare(method.clone(), &path)
        } else {
            client.request(method.clone(), &path).await
        };
        if !body.is_null() {
            request = request.json(&body);
        }
        if at_home && dice.roll(4) == 0 {
            // Both tenants use the same idempotency keys; each key counts within its tenant.
            request = request.header("Idempotency-Key", format!("order-{}", dice.roll(200)));
        }
        let answer = finish(request).await;
        let asked = format!("{method} {path} {body}");
        self.check(
            whose,
            &asked,
            &format!("{:?} {}", answer.headers, answer.text),
        );
        if let Some(cursor) = answer.body["next_cursor"].as_str() {
            let list = LISTS.into_iter().find(|list| path.contains(list));
            let list = (list.expect("a list that is known"), whose);
            let mut known = self.known();
            known
                .cursors
                .entry(list)
                .or_default()
                .push(cursor.to_owned());
        }
        self.judge(whose, target, &asked, &answer);
    }

    /// Checks that an operation on the other tenant's things is answered as if those things did not exist.
    fn judge(&self, whose: usize, target: usize, asked: &str, answer: &Answer) {
        let status = answer.status.as_u16();
        let names_other = whose != target && {
            let path = asked.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            let segments: Vec<&str> = path.split('/').collect();
            let known = self.known();
            segments.iter().any(|segment| {
                APPS[target].contains(segment) || known.owners.get(*segment) == Some(&target)
            })
        };
        if names_other {
            // An operator's path refuses a tenant's key before the path looks for anything.
            let wanted = if asked.contains("/v1/tenants/") {
                403
            } else {
                404
            };
            assert_eq!(status, wanted, "{asked}: {answer:?}");
        }
        assert!(status < 500 || status == 503, "{asked}: {answer:?}");
    }

    /// A random operation of tenant `whose` on the things of tenant `target`: a method, a path and a body.
    fn choose(&self, whose: usize, target: usize, dice: &mut Dice) -> Choice {
        match dice.roll(7) {
            0..=2 => self.with_messages(whose, target, dice),
            3 | 4 => self.with_apps(whose, target, dice),
            _ => self.with_the_account(whose, target, dice),
        }
    }

    fn with_messages(&self, whose: usize, target: usize, dice: &mut Dice) -> Choice {
        let marker = MARKERS[whose];
        let app = APPS[target][dice.roll(2)];
        let message = self.some_id(target, "msg_", dice);
        let (get, post) = (Method::GET, Method::POST);
        match dice.roll(12) {
            0..=3 => {
                let path = format!("/v1/apps/{app}/messages");
                (post, path, new_message(marker, dice))
            }
            4 => {
                let messages = (0..3).map(|_| new_message(marker, dice));
                let messages: Vec<Value> = messages.collect();
                let path = format!("/v1/apps/{app}/messages/batch");
                (post, path, json!({ "messages": messages }))
            }
            5 | 6 => {
                let cursor = self.some_cursor(target, "/messages?", dice);
                let filter = match dice.roll(4) {
                    0 => "&status=sent".to_owned(),
                    1 => format!("&touser=o{marker}{}", dice.roll(300)),
                    2 => format!("&reference={marker}-{}", dice.roll(100)),
                    _ => String::new(),
                };
                let path = format!("/v1/apps/{app}/messages?limit=5{filter}{cursor}");
                (get, path, Value::Null)
            }
            7..=9 => (get, format!("/v1/messages/{message}"), Value::Null),
            verb => {
                let verb = if verb == 10 { "cancel" } else { "retry" };
                (post, format!("/v1/messages/{message}/{verb}"), Value::Null)
            }
        }
    }

    fn with_apps(&self, whose: usize, target: usize, dice: &mut Dice) -> Choice {
        let marker = MARKERS[whose];
        let app = APPS[target][dice.roll(2)];
        let token = &self.wechat_tokens[whose];
        let (get, post) = (Method::GET, Method::POST);
        match dice.roll(7) {
            0 => {
                let part = dice.pick(&["", "/token", "/quota"]);
                (get, format!("/v1/apps/{app}{part}"), Value::Null)
            }
            1 => {
                let cursor = self.some_cursor(target, "/v1/apps?", dice);
                (get, format!("/v1/apps?limit=1{cursor}"), Value::Null)
            }
            2 => {
                let name = json!({"name": format!("{marker} {}", dice.roll(9))});
                (Method::PATCH, format!("/v1/apps/{app}"), name)
            }
            3 => {
                let secret = json!({"secret": SECRET});
                (Method::PUT, format!("/v1/apps/{app}/secret"), secret)
            }
            4 => {
                let verb = dice.pick(&["verify", "access-token"]);
                (post, format!("/v1/apps/{app}/{verb}"), json!({}))
            }
            5 => {
                let path = format!("/cgi-bin/message/subscribe/send?access_token={token}");
                (post, path, new_message(marker, dice))
            }
            _ => {
                let path = format!("/wxaapi/newtmpl/gettemplate?access_token={token}");
                (get, path, Value::Null)
            }
        }
    }

    fn with_the_account(&self, whose: usize, target: usize, dice: &mut Dice) -> Choice {
        let marker = MARKERS[whose];
        let hook = self.some_id(target, "whk_", dice);
        let key = self.some_id(target, "key_", dice);
        let (get, post) = (Method::GET, Method::POST);
        match dice.roll(9) {
            0 => {
                // Only the lasting webhook gets all events. More such webhooks would cost a post for each message.
                let events = ["message.failed"];
                let new =
                    json!({"url": self.hooks[whose], "events": events, "description": marker});
                (post, "/v1/webhooks".to_owned(), new)
            }
            2 if hook != self.lasting[whose] => {
                (Method::DELETE, format!("/v1/webhooks/{hook}"), Value::Null)
            }
            1 | 2 => {
                let part = dice.pick(&["", "/deliveries?limit=3"]);
                (get, format!("/v1/webhooks/{hook}{part}"), Value::Null)
            }
            3 => {
                let event = self.some_id(target, "evt_", dice);
                let path = format!("/v1/webhooks/{hook}/deliveries/{event}/redeliver");
                (post, path, Value::Null)
            }
            4 => {
                let cursor = self.some_cursor(target, "/v1/keys?", dice);
                (get, format!("/v1/keys?limit=3{cursor}"), Value::Null)
            }
            5 => {
                let new = json!({"name": marker, "scopes": ["apps:read"]});
                (post, "/v1/keys".to_owned(), new)
            }
            // The key that the callers themselves use is spared.
            6 if key != self.tenants[whose].client.key().client_id => {
                (Method::DELETE, format!("/v1/keys/{key}"), Value::Null)
            }
            6 | 7 => {
                let cursor = self.some_cursor(target, "/v1/audit?", dice);
                let filter = match dice.roll(3) {
                    0 => format!("&target={}", APPS[target][0]),
                    1 => format!("&target={key}"),
                    _ => String::new(),
                };
                let path = format!("/v1/audit?limit=5{filter}{cursor}");
                (get, path, Value::Null)
            }
            _ => {
                let path = format!("/v1/tenants/{}", self.tenants[target].id);
                (get, path, Value::Null)
            }
        }
    }
}

/// A message of the tenant with this marker.
fn new_message(marker: &str, dice: &mut Dice) -> Value {
    let more = json!({
        "reference": format!("{marker}-{}", dice.roll(100)),
        "metadata": {"of": marker},
        "ttl": 600,
        "priority": dice.pick(&["low", "normal", "high"]),
    });
    message_with(&format!("o{marker}{}", dice.roll(300)), more)
}

#[test]
fn a_seed_makes_the_same_choices() {
    let rolls = |seed| {
        let mut dice = Dice(seed);
        (0..20).map(|_| dice.roll(1000)).collect::<Vec<_>>()
    };
    assert_eq!(rolls(7), rolls(7));
    assert_ne!(rolls(7), rolls(8));
}
