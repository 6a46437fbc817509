use super::*;
use std::io::Write;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn with_environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::from_layers(None, variables(pairs), &Flags::default())
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    with_environment(pairs).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let settings = with_environment(&[]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.database_url, "sqlite://wxgate-data/wxgate.db");
    assert_eq!(settings.mode, Mode::Embedded);
    assert_eq!(settings.wechat_base_url, "https://api.weixin.qq.com");
    assert_eq!(
        (
            settings.sending_slots,
            settings.shutdown_timeout.as_secs(),
            settings.wechat_timeout.as_secs()
        ),
        (1024, 30, 5)
    );
    let days = |days: u64| Duration::from_hours(24 * days);
    assert_eq!(
        (settings.retention.messages, settings.retention.payloads),
        (days(90), days(90))
    );
    assert_eq!(settings.retention.audit, days(400));
    let shorter = with_environment(&[("WXGATE_AUDIT_RETENTION", "30d")]).unwrap();
    assert_eq!(shorter.retention.audit, days(30));
    assert_eq!(
        shorter.retention.messages,
        days(90),
        "the one says nothing of the other"
    );
    assert!(settings.warnings.is_empty() && !settings.log_is_set);
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file() {
    let file = file("listen = \"127.0.0.1:1\"\nsending_slots = 7\nlog = \"debug\"\n");
    let environment = variables(&[
        ("WXGATE_LISTEN", "127.0.0.1:2"),
        ("WXGATE_SENDING_SLOTS", "8"),
        ("WXGATE_LOG_FORMAT", ""),
    ]);
    let flags = Flags {
        listen: Some("localhost:3".into()),
        ..Flags::default()
    };
    let settings = Settings::from_layers(Some(file.path()), environment, &flags).unwrap();
    assert_eq!(
        (
            settings.listen.port(),
            settings.sending_slots,
            settings.log.as_str()
        ),
        (3, 8, "debug")
    );
    let sources: Vec<_> = settings
        .shown()
        .iter()
        .map(|shown| (shown.name, shown.source.as_str()))
        .collect();
    let from_file = format!("file {}", file.path().display());
    for expected in [
        ("listen", "flag"),
        ("sending_slots", "environment"),
        ("log", from_file.as_str()),
        ("log_format", "default"),
    ] {
        assert!(
            sources.contains(&expected),
            "{expected:?} is not in {sources:?}"
        );
    }
}

#[test]
fn the_environment_can_name_the_file() {
    let file = file("listen = \"127.0.0.1:1\"");
    let settings = with_environment(&[("WXGATE_CONFIG", file.path().to_str().unwrap())]).unwrap();
    assert_eq!(settings.listen.port(), 1);
}

#[test]
fn blanks_around_a_value_are_no_part_of_it() {
    let url = "sqlite:///var/lib/wxgate/w.db";
    for typed in [format!("{url}\n"), format!("  {url}\t\r\n")] {
        let settings = with_environment(&[("WXGATE_DATABASE_URL", &typed)]).unwrap();
        assert_eq!(settings.database_url, url, "{typed:?}");
        assert_eq!(settings.mode, Mode::Embedded);
    }
    let public = with_environment(&[("WXGATE_PUBLIC_URL", " https://Gate.example/\n")]).unwrap();
    assert_eq!(public.public_url.as_deref(), Some("https://gate.example"));
    let blank = with_environment(&[("WXGATE_REDIS_URL", " \n")]).unwrap();
    assert_eq!(blank.mode, Mode::Embedded);
    for within in ["sqlite://a\nb.db", "sqlite://a\u{7f}.db"] {
        let refused = refusal(&[("WXGATE_DATABASE_URL", within)]);
        assert!(
            refused.starts_with("WXGATE_DATABASE_URL has a line break"),
            "{refused}"
        );
    }
}

#[test]
fn unknown_keys_in_the_file_are_refused_and_unknown_variables_told() {
    for (text, words) in [
        ("lisen = \"x\"", "database_url"),
        ("[listen]\nport = 1", "must be a text"),
        ("listen =", "TOML"),
    ] {
        let file = file(text);
        let refused = Settings::from_layers(Some(file.path()), [], &Flags::default())
            .unwrap_err()
            .to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let settings = with_environment(&[("WXGATE_LISEN", "x"), ("HOME", "/root")]).unwrap();
    assert!(settings.warnings.len() == 1 && settings.warnings[0].contains("WXGATE_LISEN"));
}

#[test]
fn a_fault_in_the_file_is_told_by_its_place_and_never_by_the_line() {
    for (text, place) in [
        ("log = \"info\"\nmaster_key = \"s3cret", "line 2, column 21"),
        ("master_key = s3cret", "line 1, column 14"),
        ("master_key s3cret", "line 1, column"),
        ("master_key = \"\"\"\ns3cret\\q", "line 2, column"),
    ] {
        let file = file(text);
        let refused = Settings::from_layers(Some(file.path()), [], &Flags::default());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(place), "{refused}");
        assert!(!refused.contains("s3cret"), "{refused}");
    }
}

#[test]
fn a_url_that_cannot_be_read_is_a_wrong_setting() {
    for database in [
        "postgres://wx:s3/cret@127.0.0.1:5432/db",
        "postgres://wx:12?cret@127.0.0.1/db",
    ] {
        let refused = refusal(&[
            ("WXGATE_DATABASE_URL", database),
            ("WXGATE_REDIS_URL", "redis://cache"),
        ]);
        assert!(refused.contains("WXGATE_DATABASE_URL"), "{refused}");
        assert!(
            refused.contains("%2F") && !refused.contains("cret"),
            "{refused}"
        );
    }
}

#[test]
fn what_would_have_no_effect_is_refused() {
    assert!(refusal(&[("WXGATE_OTLP_ENDPOINT", "x")]).contains("WXGATE_OTLP_ENDPOINT"));
}

#[test]
fn the_public_url_is_a_root() {
    let of = |url: &str| with_environment(&[("WXGATE_PUBLIC_URL", url)]).unwrap();
    for (url, kept) in [
        ("https://wxgate.example.com", "https://wxgate.example.com"),
        ("http://localhost:8080/", "http://localhost:8080"),
    ] {
        assert_eq!(of(url).public_url.as_deref(), Some(kept));
    }
    let refused = refusal(&[("WXGATE_PUBLIC_URL", "https://example.com/wxgate")]);
    assert!(
        refused.contains("WXGATE_PUBLIC_URL has the path /wxgate"),
        "{refused}"
    );
    let inside = with_environment(&[("WXGATE_WECHAT_BASE_URL", "https://proxy.example/wechat")]);
    assert_eq!(
        inside.unwrap().wechat_base_url,
        "https://proxy.example/wechat"
    );
}

#[test]
fn every_problem_names_its_setting() {
    for (name, value) in [
        ("WXGATE_LISTEN", "8080"),
        ("WXGATE_WECHAT_BASE_URL", "api.weixin.qq.com"),
        ("WXGATE_PUBLIC_URL", "https://user@host"),
        ("WXGATE_SENDING_SLOTS", "0"),
        ("WXGATE_SHUTDOWN_TIMEOUT", "soon"),
        ("WXGATE_SHUTDOWN_GRACE", "16s"),
        ("WXGATE_SHUTDOWN_GRACE", "-1"),
        ("WXGATE_WECHAT_TIMEOUT", "500ms"),
        ("WXGATE_MESSAGE_RETENTION", "0d"),
        ("WXGATE_PAYLOAD_RETENTION", "two weeks"),
        ("WXGATE_PAYLOAD_RETENTION", "91d"),
        ("WXGATE_AUDIT_RETENTION", "0"),
        ("WXGATE_AUDIT_RETENTION", "for ever"),
        ("WXGATE_ALLOW_PRIVATE_WEBHOOKS", "perhaps"),
        ("WXGATE_LOG", "wxgate=loud"),
        ("WXGATE_LOG_FORMAT", "xml"),
    ] {
        let refused = refusal(&[(name, value)]);
        assert!(refused.contains(name), "{refused}");
    }
    let flags = Flags {
        sending_slots: Some("none".into()),
        ..Flags::default()
    };
    let refused = Settings::from_layers(None, [], &flags)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("--sending-slots"), "{refused}");
    assert!(
        refusal(&[("WXGATE_MASTER_KEY", "a"), ("WXGATE_MASTER_KEY_FILE", "b")])
            .contains("unset one")
    );
}

#[test]
fn a_key_file_on_the_command_line_beats_a_key_in_the_environment() {
    let flags = Flags {
        master_key_file: Some("key".into()),
        ..Flags::default()
    };
    let settings = Settings::from_layers(None, variables(&[("WXGATE_MASTER_KEY", "a")]), &flags);
    let settings = settings.unwrap();
    assert!(settings.master_key.is_none() && settings.master_key_file.is_some());
}

#[test]
fn times_have_units() {
    for (text, seconds) in [("7", 7), ("7s", 7), ("2m", 120)] {
        assert_eq!(
            with_environment(&[("WXGATE_SHUTDOWN_TIMEOUT", text)])
                .unwrap()
                .shutdown_timeout
                .as_secs(),
            seconds
        );
    }
}

#[test]
fn a_grace_is_for_those_who_have_other_replicas() {
    const PRODUCTION: [(&str, &str); 2] = [
        ("WXGATE_DATABASE_URL", "postgres://db/wxgate"),
        ("WXGATE_REDIS_URL", "redis://cache"),
    ];
    let grace = |pairs: &[(&str, &str)]| {
        let settings = with_environment(pairs).unwrap();
        settings.shutdown_grace.as_millis()
    };
    assert_eq!(grace(&[]), 0);
    assert_eq!(grace(&PRODUCTION), 5000);
    let short = ("WXGATE_SHUTDOWN_TIMEOUT", "3s");
    assert_eq!(grace(&[PRODUCTION[0], PRODUCTION[1], short]), 1500);
    assert_eq!(grace(&[("WXGATE_SHUTDOWN_GRACE", "15s")]), 15_000);
}

#[test]
fn plain_http_to_another_machine_is_told() {
    let warnings = |url: &str| {
        with_environment(&[("WXGATE_WECHAT_BASE_URL", url)])
            .unwrap()
            .warnings
            .len()
    };
    assert_eq!(warnings("http://wechat.example"), 1);
    for fine in [
        "http://127.0.0.1:8090",
        "http://localhost:8090",
        "http://[::1]:8090",
        "https://api2.weixin.qq.com/",
    ] {
        assert_eq!(warnings(fine), 0, "{fine}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let settings = with_environment(&[
        ("WXGATE_DATABASE_URL", "postgres://wx:s3cret@db/wxgate"),
        ("WXGATE_REDIS_URL", "redis://:s3cret@cache"),
        ("WXGATE_MASTER_KEY", "s3cret"),
    ]);
    let shown = serde_json::to_string(settings.unwrap().shown()).unwrap();
    assert!(
        !shown.contains("s3cret") && shown.contains("postgres://wx:***@db/wxgate"),
        "{shown}"
    );
}

#[test]
fn proxies_are_addresses_and_ranges() {
    let set = |text| with_environment(&[("WXGATE_TRUSTED_PROXIES", text)]);
    assert_eq!(
        set("10.0.0.0/8, ::1").unwrap().trusted_proxies,
        "10.0.0.0/8,::1".parse().unwrap()
    );
    let told = refusal(&[("WXGATE_TRUSTED_PROXIES", "10.0.0.0/8,nginx")]);
    assert!(
        told.contains("WXGATE_TRUSTED_PROXIES") && told.contains("nginx"),
        "{told}"
    );
}

#[test]
fn the_previous_master_key_is_never_shown() {
    let settings = with_environment(&[("WXGATE_MASTER_KEY_PREVIOUS", "c2VjcmV0")]).unwrap();
    let shown = settings.shown().iter();
    let mut shown = shown.filter(|shown| shown.name == "master_key_previous");
    assert_eq!(shown.next().unwrap().value.as_deref(), Some("***"));
    let told = refusal(&[
        ("WXGATE_MASTER_KEY_PREVIOUS", "a"),
        ("WXGATE_MASTER_KEY_PREVIOUS_FILE", "b"),
    ]);
    assert!(told.contains("WXGATE_MASTER_KEY_PREVIOUS_FILE"), "{told}");
}

#[test]
fn origins_are_named_exactly() {
    let origins = |text: &str| with_environment(&[("WXGATE_CORS_ORIGINS", text)]);
    let named = origins("https://admin.example.com, http://localhost:3000").unwrap();
    assert_eq!(
        named.cors_origins,
        ["https://admin.example.com", "http://localhost:3000"]
    );
    assert!(origins("").unwrap().cors_origins.is_empty());
    for wrong in [
        "*",
        "null",
        "admin.example.com",
        "https://admin.example.com/",
        "https://admin.example.com/path",
        "https://admin.example.com:443",
        "https://Admin.example.com",
    ] {
        let refused = refusal(&[("WXGATE_CORS_ORIGINS", wrong)]);
        assert!(refused.contains("WXGATE_CORS_ORIGINS"), "{refused}");
    }
}
