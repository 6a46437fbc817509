//! `wxgate import` of files that spreadsheets save: the check before the send, and the rejected lines left for
//! correction.

use std::{fs::File, path::PathBuf, process::Stdio};

use serde_json::{Value, json};

use crate::{
    operations::import::{APP, counts, import},
    world::{Ended, Mode, SECRET, TEMPLATE, World, message, run},
};

both_modes!(
    every_form_that_a_spreadsheet_saves_is_sent,
    an_unreadable_file_is_refused_before_anything_is_sent,
    a_check_reads_every_line_and_sends_nothing,
    rejected_lines_are_kept_for_correction,
    standard_input_is_imported,
    a_paused_app_is_reported,
);

async fn world(mode: Mode) -> World {
    let world = World::start(mode).await;
    world.tenant("a").await.app(APP).await;
    world
}

/// The body that WeChat got for `user`.
fn sent_to(world: &World, user: &str) -> Value {
    let sent = world.wechat().sent(APP);
    let body = sent.iter().find(|sent| sent.touser == user);
    let body = body.and_then(|sent| sent.body.clone()).expect("a body");
    serde_json::from_str(&body).expect("JSON")
}

async fn every_form_that_a_spreadsheet_saves_is_sent(mode: Mode) {
    let world = world(mode).await;
    let table = |user: &str, separator: &str| {
        let row = |cells: [&str; 3]| cells.join(separator);
        let head = row(["touser", "thing1", "page"]);
        format!("{head}\r\n{}\r\n", row([user, "杯", "pages/cup?id=1"]))
    };
    let utf_16 =
        |text: String| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    // "Unicode text", which has tabs, "CSV (semicolons)", and "CSV" in China, which is GBK.
    let gbk = table("o4", ",").replace('杯', "\u{1}");
    let gbk = gbk.bytes().flat_map(|byte| {
        if byte == 1 {
            vec![0xb1, 0xad]
        } else {
            vec![byte]
        }
    });
    for (user, encoding, content) in [
        (
            "o1",
            "utf-8",
            format!("\u{feff}{}", table("o1", ",")).into_bytes(),
        ),
        (
            "o2",
            "utf-16",
            utf_16(format!("\u{feff}{}", table("o2", "\t"))),
        ),
        ("o3", "utf-8", table("o3", ";").into_bytes()),
        ("o4", "gb18030", gbk.collect()),
    ] {
        let report = import(&world, "users.csv", content, &[]).expect(0).json();
        assert_eq!(counts(&report), [1, 0, 1], "{user}: {report}");
        assert_eq!(report["encoding"], encoding, "{user}");
        let body = sent_to(&world, user);
        assert_eq!(body["data"], json!({"thing1": {"value": "杯"}}), "{user}");
        assert_eq!(body["page"], "pages/cup?id=1", "{user}");
    }
}

async fn an_unreadable_file_is_refused_before_anything_is_sent(mode: Mode) {
    let world = world(mode).await;
    let fine = "touser,thing1\no1,茶\no2,\"tea\nwith milk\"\n";
    for (content, told) in [
        (
            [fine.as_bytes(), b"o3,\xc3\x28\n"].concat(),
            "line 5 is neither UTF-8 nor GB18030",
        ),
        ([fine.as_bytes(), b"o3,\"tea\no4,x\n"].concat(), "line 5"),
        (b"touser,touser,thing1\no1,o2,x\n".to_vec(), "touser"),
    ] {
        let refused = import(&world, "users.csv", content, &[]).expect(2).stderr();
        assert!(refused.contains(told), "{refused}");
    }
    assert!(world.wechat().sent(APP).is_empty());
}

async fn a_check_reads_every_line_and_sends_nothing(mode: Mode) {
    let world = world(mode).await;
    let table = "touser,thing1\no1,fine\no 2,blank\no3,a text that is longer than 20\n";
    let report = import(&world, "users.csv", table, &["--check"])
        .expect(1)
        .json();
    assert_eq!(counts(&report), [0, 0, 0]);
    assert_eq!(report["checked"], 3);
    let lines: Vec<_> = report["refused"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|told| &told["line"])
        .collect();
    assert_eq!(lines, [3, 4]);
    import(
        &world,
        "users.csv",
        "touser,thing1\no1,fine\n",
        &["--check"],
    )
    .expect(0);
    assert!(world.wechat().sent(APP).is_empty());
}

async fn rejected_lines_are_kept_for_correction(mode: Mode) {
    let world = world(mode).await;
    let file = |name: &str| -> PathBuf {
        let command = world.wxgate(&[]);
        command.get_current_dir().expect("a folder").join(name)
    };
    let table = "touser;thing1\no1;fine\no 2;\"two\nlines\"\no3;fine\n";
    let rejects = ["--rejects", "rejects.csv"];
    let report = import(&world, "users.csv", table, &rejects)
        .expect(1)
        .json();
    assert_eq!(counts(&report), [2, 0, 2]);
    let kept = std::fs::read_to_string(file("rejects.csv")).expect("the refused lines");
    assert_eq!(kept, "touser;thing1\no 2;\"two\nlines\"\n");

    // The import does not overwrite an existing file, and sends nothing.
    let refused = import(&world, "users.csv", &table[..24], &rejects).expect(2);
    assert!(refused.stderr().contains("name a new file with --rejects"));
    let corrected = kept.replace("o 2", "o2").replace("two\n", "two ");
    let none = ["--rejects", "none.csv"];
    let report = import(&world, "corrected.csv", corrected, &none)
        .expect(0)
        .json();
    assert_eq!(counts(&report), [1, 0, 1]);
    assert!(!file("none.csv").exists(), "nothing was refused");
    assert_eq!(world.wechat().sent(APP).len(), 3);
}

async fn standard_input_is_imported(mode: Mode) {
    let world = world(mode).await;
    let give = |content: &str, more: &[&str]| -> Ended {
        let arguments = [
            "import",
            "-",
            "--appid",
            APP,
            "--template",
            TEMPLATE,
            "--json",
        ];
        let mut command = world.wxgate(&[&arguments[..], more].concat());
        let file = command.get_current_dir().expect("a folder").join("input");
        std::fs::write(&file, content).expect("a file");
        command.stdin(Stdio::from(File::open(file).expect("a file")));
        run(command)
    };
    let line = json!({"touser": "o1", "data": {"thing1": {"value": "x"}}}).to_string();
    let report = give(&line, &["--format", "ndjson"]).expect(0).json();
    assert_eq!(counts(&report), [1, 0, 1]);
    let report = give("touser,thing1\no2,x\n", &["--format", "csv"])
        .expect(0)
        .json();
    assert_eq!(counts(&report), [1, 0, 1]);
    assert!(
        give(&line, &[])
            .expect(2)
            .stderr()
            .contains("--format ndjson")
    );
}

async fn a_paused_app_is_reported(mode: Mode) {
    let world = World::start(mode).await;
    let tenant = world.tenant("a").await;
    world
        .wechat()
        .change_app(APP, |app| app.secret = Some("another".into()));
    let new = json!({"appid": APP, "secret": SECRET, "tenant_id": tenant.id, "verify": false});
    world.operator().post("/v1/apps", &new).await.expect(201);
    let blocked = tenant.send(APP, &message("o1")).await;
    tenant.wait_attempt(&blocked, "app_blocked").await;
    let told = import(&world, "users.csv", "touser,thing1\no2,x\n", &["--no-wait"]);
    let told = told.expect(0).json()["pause"].to_string();
    assert!(told.contains("wrong_secret"), "{told}");
    assert!(told.contains(&format!("wxgate app verify {APP}")), "{told}");
}
