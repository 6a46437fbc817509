//! `wxgate import`: each line of a file is sent once, however often the command runs.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use simulator::{Effect, Fault};

use crate::world::{Ended, Mode, TEMPLATE, World, run};

pub(crate) const APP: &str = "wx00000000000000a1";
const SUBSCRIBE: &str = "/cgi-bin/message/subscribe/send";

both_modes!(
    a_table_is_sent_once,
    a_table_is_sent_whole_however_its_lines_end,
    refused_lines_are_reported,
    objects_are_sent_with_their_own_fields,
    deleted_messages_are_reported,
    lines_beyond_the_daily_quota_are_sent_another_day,
    refusals_of_wechat_are_reported,
);

/// Imports a file with this content.
pub(crate) fn import(world: &World, file: &str, content: impl AsRef<[u8]>, more: &[&str]) -> Ended {
    let arguments = [
        "import",
        file,
        "--appid",
        APP,
        "--template",
        TEMPLATE,
        "--json",
    ];
    let command = world.wxgate(&[&arguments[..], more].concat());
    let folder = command.get_current_dir().expect("a folder");
    std::fs::write(folder.join(file), content).expect("a file");
    run(command)
}

/// The numbers of lines that are accepted, were accepted by an earlier run, and are sent.
pub(crate) fn counts(report: &Value) -> [u64; 3] {
    ["accepted", "repeated", "sent"].map(|name| report[name].as_u64().expect("a count"))
}

fn table(lines: usize) -> String {
    (0..lines).fold("touser,thing1,number2\n".to_owned(), |table, number| {
        format!("{table}o{number},\"杯, {number}\",{number}\n")
    })
}

async fn a_table_is_sent_once(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let table = table(700);

    let queued = import(&world, "users.csv", &table, &["--no-wait"])
        .expect(0)
        .json();
    assert_eq!(counts(&queued)[..2], [700, 0]);
    // The same import waits for the queued messages, and adds no message.
    let sent = import(&world, "users.csv", &table, &[]).expect(0).json();
    assert_eq!(counts(&sent), [700, 700, 700]);

    let sent = world.wechat().sent(APP);
    let users: BTreeSet<&str> = sent.iter().map(|sent| sent.touser.as_str()).collect();
    assert_eq!((sent.len(), users.len()), (700, 700));
    let first = sent.iter().find(|sent| sent.touser == "o0");
    let body = first.and_then(|sent| sent.body.clone()).expect("a body");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        body["data"],
        json!({"thing1": {"value": "杯, 0"}, "number2": {"value": "0"}})
    );

    let again = import(&world, "users.csv", &table, &["--name", "second round"]);
    assert_eq!(counts(&again.expect(0).json()), [700, 0, 700]);
    assert_eq!(world.wechat().sent(APP).len(), 1400);
}

async fn a_table_is_sent_whole_however_its_lines_end(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    // A file of an old spreadsheet program, and a file that was joined from several files.
    let tables = [
        "touser,thing1\ro1,one\ro2,one\ro 3,one\ro4,one\r",
        "touser,thing1\no5,one\ro6,one\r\no 7,\"a\rb\"\ro8,one",
    ];
    for table in tables {
        for repeated in [0, 3] {
            let report = import(&world, "users.csv", table, &[]).expect(1).json();
            assert_eq!(counts(&report), [3, repeated, 3], "{table:?}");
            assert_eq!(report["refused"][0]["line"], 4, "{report}");
        }
    }
    let sent = world.wechat().sent(APP);
    let users: BTreeSet<&str> = sent.iter().map(|sent| sent.touser.as_str()).collect();
    assert_eq!(users, BTreeSet::from(["o1", "o2", "o4", "o5", "o6", "o8"]));
    assert_eq!(sent.len(), 6);
}

async fn refused_lines_are_reported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let table =
        "touser,thing1\no1,fine\no 2,blank\no3\no4,a text that is longer than 20\no5,fine\n";
    for repeated in [0, 2] {
        let report = import(&world, "users.csv", table, &[]).expect(1).json();
        assert_eq!(counts(&report), [2, repeated, 2]);
        let refused = report["refused"].as_array().expect("refused");
        let told: Vec<_> = refused
            .iter()
            .map(|told| (told["line"].as_u64(), told["reason"].as_str()))
            .collect();
        assert_eq!(
            told.iter().map(|told| told.0).collect::<Vec<_>>(),
            [3, 4, 5].map(Some)
        );
        let reason = |at: usize| told[at].1.expect("a reason");
        assert!(reason(0).starts_with("touser"), "{told:?}");
        assert!(reason(1).contains("columns"), "{told:?}");
        assert!(reason(2).starts_with("data/thing1/value"), "{told:?}");
    }
    assert_eq!(world.wechat().sent(APP).len(), 2);
    // The second line is corrected and a new line is inserted above: no other recipient gets a second message.
    let corrected = table
        .replace("thing1\n", "thing1\no0,new\n")
        .replace("o 2", "o2");
    let report = import(&world, "users.csv", &corrected, &[])
        .expect(1)
        .json();
    assert_eq!(counts(&report), [4, 2, 4]);
    assert_eq!(world.wechat().sent(APP).len(), 4);

    let wrong = import(&world, "users.csv", "openid,thing1\no1,x\n", &[]);
    assert!(wrong.expect(2).stderr().contains("touser"));
}

async fn objects_are_sent_with_their_own_fields(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let data = json!({"thing1": {"value": "x"}});
    let far = (world.now() + Duration::from_hours(1)).to_rfc3339();
    let lines = [
        json!({"touser": "o1", "data": data, "reference": "r1", "priority": "high"}),
        json!({"touser": "o2", "data": data, "reference": "r2", "send_at": far}),
        json!({"touser": "o3", "data": data, "colour": 1}),
        json!({"touser": "o4", "data": data, "dry_run": true}),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    let report = import(&world, "some.ndjson", &lines, &["--ttl", "600"])
        .expect(1)
        .json();
    assert_eq!(counts(&report), [2, 0, 1], "nobody waits for an hour");
    assert_eq!(report["refused"][0]["line"], 3);
    assert_eq!(report["refused"][1]["line"], 4);
    let reason = report["refused"][1]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("dry_run"), "{report}");
    for (reference, status, priority) in [("r1", "sent", "high"), ("r2", "scheduled", "low")] {
        let path = format!("/v1/apps/{APP}/messages?reference={reference}");
        let message = tenant.client.get(&path).await.expect(200)["data"][0].clone();
        assert_eq!(
            (&message["status"], &message["priority"], &message["ttl"]),
            (&json!(status), &json!(priority), &json!(600)),
            "{message}"
        );
        assert_eq!(message["template_id"], TEMPLATE);
    }
}

async fn deleted_messages_are_reported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let table = table(3);
    let sent = import(&world, "users.csv", &table, &[]).expect(0).json();
    assert_eq!(counts(&sent), [3, 0, 3]);
    let later = world.now() + Duration::from_hours(1);
    let forgotten = world.store().platform().forget_messages(later).await;
    assert_eq!(forgotten.map(|swept| swept.moved).ok(), Some(3));

    let report = import(&world, "users.csv", &table, &[]).expect(1).json();
    assert_eq!(counts(&report), [3, 3, 0]);
    let lines: Vec<_> = report["forgotten"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|told| told["line"].as_u64())
        .collect();
    assert_eq!(lines, [2, 3, 4].map(Some), "{report}");
    assert_eq!(report["failed"], json!([]));
    assert_eq!(world.wechat().sent(APP).len(), 3, "nothing is sent twice");
}

async fn lines_beyond_the_daily_quota_are_sent_another_day(mode: Mode) {
    let world = World::start(mode).await;
    let limits = json!({"requests_per_second": 1000, "messages_per_day": 3});
    let tenant = world.tenant_with("a", limits).await;
    tenant.app(APP).await;
    let table = table(5);
    let report = import(&world, "users.csv", &table, &[]).expect(1).json();
    assert_eq!(counts(&report), [3, 0, 3]);
    assert_eq!(report["refused"].as_array().map(Vec::len), Some(2));
    let reason = report["refused"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("limit of 3 messages a day"), "{reason}");

    let path = format!("/v1/tenants/{}", tenant.id);
    let raised = json!({"limits": {"messages_per_day": null}});
    world.operator().patch(&path, &raised).await.expect(200);
    let report = import(&world, "users.csv", &table, &[]).expect(0).json();
    assert_eq!(counts(&report), [5, 3, 5], "the rest");
    assert_eq!(world.wechat().sent(APP).len(), 5);
}

async fn refusals_of_wechat_are_reported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    tenant.app(APP).await;
    let refused = Effect::Errcode {
        errcode: 43101,
        errmsg: None,
    };
    world
        .wechat()
        .add_fault(Fault::next(1, refused).for_path(SUBSCRIBE));
    let report = import(&world, "users.csv", table(1), &[]).expect(1).json();
    assert_eq!(counts(&report), [1, 0, 0]);
    let failed = &report["failed"][0];
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(
        failed["line"] == 2 && reason.starts_with("failed: ") && reason.contains("43101"),
        "{report}"
    );
}
