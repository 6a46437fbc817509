//! The logs of the real program.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};
use simulator::{Effect, Fault};

use crate::world::{Mode, World, eventually, id, message, message_with, until};

const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

/// JSON without duplicate keys in any object: parsers differ in which of two equal keys wins.
#[derive(Debug)]
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut read = Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            if read.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("`{key}` twice")));
            }
        }
        Ok(Unique(Value::Object(read)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        let mut read = Vec::new();
        while let Some(Unique(value)) = seq.next_element()? {
            read.push(value);
        }
        Ok(Unique(Value::Array(read)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Unique, E> {
        Ok(Unique(text.into()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_unit<E: Error>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }
}

/// The log names a message that this version cannot read, such as a newer replica's, in a field of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_line_has_each_key_once() {
    let plan = World::plan(Mode::Production).own_process();
    let world = plan.log("debug").log_json().start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let refused = Effect::Errcode {
        errcode: 40003,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::next(1, refused).for_path(SUBSCRIBE));
    tenant.send_and_wait(APP, &message("o1")).await;
    tenant.send_and_wait(APP, &message("o2")).await;
    let in_a_day = (world.now() + chrono::Duration::days(1)).to_rfc3339();
    let strange = tenant
        .send(APP, &message_with("o3", json!({"send_at": in_a_day})))
        .await;
    world.sql("UPDATE message SET content = '{}', due_at = 1 WHERE status = 'scheduled'");
    let words = "a message cannot be read";
    until("it is met", || world.said(0).contains(words)).await;

    let mut named = 0;
    for line in world.said(0).lines().filter(|line| line.starts_with('{')) {
        let read: Unique =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let fields = &read.0["fields"];
        assert!(fields["message"].is_string(), "{line}");
        named += usize::from(fields["message"] == words && fields["message_id"] == id(&strange));
    }
    assert!(named > 0, "{}", world.said(0));
}

/// Two sweepers find the same lost sends. One records the messages as uncertain; the other must not log a late outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_is_no_answer_that_came_late() {
    let plan = World::plan(Mode::Production).breakable().own_process();
    let mut world = plan.start().await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let hung = Fault::always(Effect::Hang { acted: true });
    world.wechat().add_fault(hung.for_path(SUBSCRIBE));
    let mut lost = Vec::new();
    for number in 0..4 {
        lost.push(tenant.send(APP, &message(&format!("o{number}"))).await);
    }
    until("WeChat has them", || world.wechat().sent(APP).len() == 4).await;
    world.kill_replica();
    world.sql("UPDATE message SET lease_until = 1 WHERE status = 'sending'");
    // Both sweepers find the rows and wait for the locks.
    let held = world.hold("SELECT id FROM message FOR UPDATE");
    world.add_replica(true).await;
    world.add_replica(true).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("both sweepers wait", || async {
        let waiting: usize = world.sql(waiting).parse().expect("a number");
        (waiting >= 2).then_some(())
    })
    .await;
    drop(held);
    let tenant = world.at(0, &tenant);
    for message in &lost {
        assert_eq!(tenant.wait_ended(message).await["status"], "uncertain");
    }
    world.stop_all().await;
    let logs = std::fs::read_dir(world.folder()).expect("a folder");
    for entry in logs {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|kind| kind == "log") {
            let said = std::fs::read_to_string(&path).expect("a log");
            assert!(
                !said.contains("an outcome arrived after its lease"),
                "{said}"
            );
        }
    }
}
