//! No secret appears in any output or storage. The test searches logs at the level `trace`, error bodies, lists,
//! metrics, webhooks, traces, the database and Redis for the secret values, also in encoded forms.

mod search;
mod wechat_exchanges;

use std::path::Path;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use simulator::{PushEvent, PushFormat, PushMode, PushSettings};

use self::search::{Evidence, Monitor, Secrets};
use crate::{
    operations::traces::Collector,
    webhooks::receiver::Receiver,
    world::{MASTER_KEY, Mode, TEMPLATE, Tenant, World, finish, id, run},
};

const APP: &str = "wx00000000000000a1";
const SPOILED: &str = "wx00000000000000b2";
const SEND: &str = "/cgi-bin/message/subscribe/send";
/// A value that is not secret and must be found in the evidence; otherwise the search proves nothing.
const CANARY: &str = "oCanary4711ThatIsNoSecret";

const APP_SECRET: &str = "a41c7d0f93be5268a41c7d0f93be5268";
const NEXT_APP_SECRET: &str = "b52d8e10a4cf6379b52d8e10a4cf6379";
const WRONG_APP_SECRET: &str = "c63e9f21b5d0748ac63e9f21b5d0748a";
const CALLBACK_TOKEN: &str = "leakCallbackToken4711";
const CALLBACK_KEY: &str = "w8Yd3Wo9Ml5Sa2Uc7Zn0Xe4It6Kg1Hq8Vb3Lf5Rj9Pt";
const NEXT_MASTER_KEY: [u8; 32] = [0xc5; 32];

both_modes!(no_secret_is_shown_or_stored);

/// One scenario with all outputs.
struct Case {
    world: World,
    tenant: Tenant,
    secrets: Secrets,
    evidence: Evidence,
}

async fn no_secret_is_shown_or_stored(mode: Mode) {
    let collector = Collector::start().await;
    let world = World::plan(mode)
        .own_process()
        .breakable()
        .log("trace")
        .traces_to(&collector.url)
        .start()
        .await;
    world.expect_copies();
    let monitor = match mode {
        Mode::Production => Some(Monitor::start(world.redis().port()).await),
        Mode::Embedded => None,
    };
    let tenant = world.tenant("leaks").await;
    let mut case = Case {
        world,
        tenant,
        secrets: Secrets::default(),
        evidence: Evidence::default(),
    };
    case.secrets.add("master key", &MASTER_KEY);
    for (name, value) in [
        ("AppSecret", APP_SECRET),
        ("AppSecret", NEXT_APP_SECRET),
        ("wrong AppSecret", WRONG_APP_SECRET),
        ("callback token", CALLBACK_TOKEN),
        ("callback key", CALLBACK_KEY),
    ] {
        case.secrets.add(name, value.as_bytes());
    }
    let receiver = Receiver::start().await;
    case.onboard(&receiver.url).await;
    case.authenticate().await;
    case.send_and_fail().await;
    case.speak_as_wechat().await;
    case.hear_wechat().await;
    case.lists_and_pages().await;
    case.exchange_keys().await;

    for heard in receiver.heard() {
        let body = String::from_utf8_lossy(&heard.body).into_owned();
        let text = format!("{:?}\n{body}", heard.headers);
        case.evidence.keep("webhook", text);
    }
    if let Some(monitor) = monitor {
        let (said, kept) = (monitor.said(), case.world.redis().dump());
        assert!(said.contains(APP) && !kept.is_empty(), "Redis was not used");
        case.evidence.keep("what Redis was told", said);
        let kept = String::from_utf8_lossy(&kept).into_owned();
        case.evidence.keep("what Redis keeps", kept);
        let dump = case.world.database_dump();
        assert!(dump.contains(CANARY), "the dump has no messages");
        case.evidence.keep("the database", dump);
    }
    // The database's write-ahead log exists while the gateway runs; at the end, all data is in the database file.
    case.read_files("while it runs");
    case.world.terminate_replica();
    case.read_files("after its end");

    let traces = String::from_utf8_lossy(&collector.told()).into_owned();
    assert!(traces.contains("/v1/apps/{appid}/messages") && traces.contains("wechat"));
    case.evidence.keep("traces", traces);
    let metrics: Vec<_> = case.evidence.named("metrics").collect();
    assert!(
        metrics
            .iter()
            .all(|(_, text)| text.contains("wxgate_http_requests_total{"))
    );
    assert_eq!(metrics.len(), 1);

    let files: Vec<_> = case.evidence.named("file ").collect();
    let found = |name: &str, word: &str| {
        let mut matching = files.iter().filter(|(file, _)| file.contains(name));
        matching.any(|(_, text)| text.contains(word))
    };
    assert!(found("gateway-", "TRACE") && found("gateway-", APP), "logs");
    if mode == Mode::Embedded {
        assert!(found("wxgate.db", CANARY), "the database has no messages");
        assert!(found("-wal", CANARY), "the log of the database");
    }
    let leaks = case.evidence.search(&case.secrets);
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

impl Case {
    /// Sends a request and keeps the answer as evidence. Not for answers that must contain a secret.
    async fn asked(&mut self, request: RequestBuilder) -> Value {
        let answer = finish(request).await;
        let text = format!("{:?}\n{}", answer.headers, answer.text);
        self.evidence.keep("answer", text);
        answer.body
    }

    async fn call(&mut self, method: Method, path: &str, body: &Value) -> Value {
        let request = self.tenant.client.request(method, path).await;
        self.asked(request.json(body)).await
    }

    async fn get(&mut self, path: &str) -> Value {
        let request = self.tenant.client.request(Method::GET, path).await;
        self.asked(request).await
    }

    /// Adds the app tokens that WeChat knows at this moment to the secrets.
    fn learn_tokens(&mut self) {
        for appid in [APP, SPOILED] {
            for token in self.world.wechat().tokens(appid) {
                self.secrets.add("access_token", token.as_bytes());
            }
        }
    }

    async fn onboard(&mut self, hook: &str) {
        let wechat = self.world.wechat();
        for appid in [APP, SPOILED] {
            wechat.change_app(appid, |app| app.secret = Some(APP_SECRET.into()));
        }
        wechat.change_app(APP, |app| {
            app.push = Some(PushSettings {
                url: String::new(),
                token: CALLBACK_TOKEN.into(),
                aes_key: Some(CALLBACK_KEY.into()),
                mode: PushMode::Safe,
                format: PushFormat::Json,
                receipts: false,
            });
        });
        let new = |appid: &str, secret: &str| {
            json!({"appid": appid, "secret": secret, "name": CANARY,
                "callback_token": CALLBACK_TOKEN, "callback_aes_key": CALLBACK_KEY})
        };
        let wrong = new(APP, WRONG_APP_SECRET);
        let refused = self.call(Method::POST, "/v1/apps", &wrong).await;
        assert_eq!(refused["code"], "wechat_rejected", "{refused}");
        let mut unreadable = new(APP, APP_SECRET);
        unreadable["daily_quota"] = json!("many");
        unreadable["secret_"] = json!(APP_SECRET);
        self.call(Method::POST, "/v1/apps", &unreadable).await;
        for appid in [APP, SPOILED] {
            let made = new(appid, APP_SECRET);
            let made = self.call(Method::POST, "/v1/apps", &made).await;
            assert_eq!(made["appid"], appid, "{made}");
        }
        let path = format!("/v1/apps/{APP}/secret");
        let secret = json!({"secret": WRONG_APP_SECRET});
        self.call(Method::PUT, &path, &secret).await;
        wechat.change_app(APP, |app| app.secret = Some(NEXT_APP_SECRET.into()));
        let secret = json!({"secret": NEXT_APP_SECRET});
        self.call(Method::PUT, &path, &secret).await;
        self.learn_tokens();

        let client = self.tenant.client.clone();
        let endpoint = json!({"url": hook, "events": ["*"]});
        let made = client.post("/v1/webhooks", &endpoint).await.expect(201);
        let rotate = format!("/v1/webhooks/{}/rotate-secret", id(&made));
        let rotated = client.post(&rotate, &json!({})).await;
        for answer in [&made, &rotated.body] {
            if let Some(secret) = answer["secret"].as_str() {
                let bare = secret.trim_start_matches("whsec_");
                self.secrets.add("webhook secret", bare.as_bytes());
            }
        }
        let test = format!("/v1/webhooks/{}/test", id(&made));
        self.call(Method::POST, &test, &Value::Null).await;
    }

    async fn authenticate(&mut self) {
        let client = self.tenant.client.clone();
        let operator = self.world.operator();
        let gone = self.world.key_of(&self.tenant.id, &["apps:read"]).await;
        for key in [client.key(), operator.key(), gone.key()] {
            let secret = key.client_secret.as_bytes();
            self.secrets.add("client secret", secret);
        }
        for one in [&client, &operator] {
            let token = one.token().await;
            self.secrets.add("bearer token", token.as_bytes());
            // A token without the end of the signature must not appear either.
            let spoiled = &token[..token.len() - 8];
            self.secrets.add("spoiled bearer token", spoiled.as_bytes());
            let request = client.bare(Method::GET, "/v1/apps").bearer_auth(spoiled);
            self.asked(request).await;
            let query = format!("/v1/apps?cursor={token}");
            self.get(&query).await;
        }
        let path = format!("/v1/keys/{}", gone.key().client_id);
        client.delete(&path).await.expect(204);
        for (id, secret) in [
            (&gone.key().client_id, &gone.key().client_secret),
            (&gone.key().client_id, &client.key().client_secret),
        ] {
            let basic = client.bare(Method::POST, "/oauth/token");
            let form = [("grant_type", "client_credentials")];
            self.asked(basic.basic_auth(id, Some(secret)).form(&form))
                .await;
            let form = [("client_id", &**id), ("client_secret", &**secret)];
            let posted = client.bare(Method::POST, "/oauth/token").form(&form);
            self.asked(posted).await;
            let console = client.bare(Method::POST, "/console/sign-in");
            let console = console.header("origin", self.world.url(0));
            let page = console.form(&[("client_secret", secret)]).send().await;
            let page = page.expect("a page").text().await.expect("a page");
            self.evidence.keep("page", page);
        }
    }

    async fn lists_and_pages(&mut self) {
        for path in [
            "/v1/apps",
            "/v1/keys",
            "/v1/webhooks",
            "/v1/audit?limit=200",
            "/readyz",
            "/.well-known/jwks.json",
        ] {
            self.get(path).await;
        }
        let metrics = self.tenant.client.get("/metrics").await;
        self.evidence.keep("metrics", metrics.text);
        for path in ["", "/token", "/quota", "/messages?limit=200"] {
            self.get(&format!("/v1/apps/{APP}{path}")).await;
        }
        let hooks = self.get("/v1/webhooks").await;
        let deliveries = format!("/v1/webhooks/{}/deliveries", id(&hooks["data"][0]));
        self.get(&deliveries).await;
        let session = self.tenant.client.session().await;
        for path in ["/console", &format!("/console/apps/{APP}")] {
            let request = self.tenant.client.bare(Method::GET, path);
            let request = request.header("cookie", format!("wxgate_console={session}"));
            let page = request.send().await.expect("a page");
            let page = page.text().await.expect("a page");
            assert!(page.contains(APP), "{page}");
            self.evidence.keep("page", page);
        }
    }

    /// Rotates the signing key and the master key; the running gateway does not have the new master key.
    async fn exchange_keys(&mut self) {
        use base64::{Engine, prelude::BASE64_STANDARD};
        self.secrets.add("master key", &NEXT_MASTER_KEY);
        for arguments in [
            &["signing-key", "rotate", "--json"][..],
            &["signing-key", "rotate", "--revoke-old", "--json"],
            &["signing-key", "list"],
            &["app", "show", APP, "--json"],
            &["key", "list", "--tenant", &self.tenant.id.clone()],
            &["config"],
        ] {
            self.run(arguments, &[]);
        }
        let (old, new) = (
            BASE64_STANDARD.encode(MASTER_KEY),
            BASE64_STANDARD.encode(NEXT_MASTER_KEY),
        );
        let rotate = ["master-key", "rotate", "--json"];
        self.run(&rotate, &[("WXGATE_MASTER_KEY", &new)]);
        let both = [
            ("WXGATE_MASTER_KEY", &*new),
            ("WXGATE_MASTER_KEY_PREVIOUS", &*old),
        ];
        self.run(&rotate, &both);
        let client = &self.tenant.client;
        let key = client.key().clone();
        let basic = client.bare(Method::POST, "/oauth/token");
        let basic = basic.basic_auth(&key.client_id, Some(&key.client_secret));
        let fresh = finish(basic.form(&[("grant_type", "client_credentials")])).await;
        let Some(token) = fresh.body["access_token"].as_str().map(str::to_owned) else {
            return;
        };
        self.secrets.add("bearer token", token.as_bytes());
        for path in ["verify", "token/refresh"] {
            let path = format!("/v1/apps/{SPOILED}/{path}");
            let request = self.tenant.client.bare(Method::POST, &path);
            let answer = request.bearer_auth(&token).json(&json!({})).send().await;
            let text = answer.expect("an answer").text().await.expect("a body");
            self.evidence.keep("answer", text);
        }
        let letter = self
            .world
            .wechat()
            .letter(APP, &PushEvent::delivered(CANARY, TEMPLATE, 8));
        let letter = letter.expect("a letter");
        let path = format!("/callbacks/{APP}?{}", letter.query);
        let request = self.tenant.client.bare(Method::POST, &path);
        let answer = request.body(letter.body).send().await;
        let text = answer.expect("an answer").text().await.expect("a body");
        self.evidence.keep("answer", text);
    }

    fn run(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let mut command = self.world.wxgate(arguments);
        command.env("WXGATE_LOG", "trace");
        command.envs(environment.iter().copied());
        let ended = run(command);
        let said = format!("{arguments:?}\n{}\n{}", ended.stdout(), ended.stderr());
        self.evidence.keep("command", said);
    }

    /// Keeps the logs as evidence, and in embedded mode the database with the files beside the database.
    fn read_files(&mut self, when: &str) {
        fn read(folder: &Path, when: &str, evidence: &mut Evidence) {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    read(&path, when, evidence);
                } else if let Ok(bytes) = std::fs::read(&path) {
                    let name = format!("file {} {when}", path.display());
                    evidence.keep(&name, String::from_utf8_lossy(&bytes).into_owned());
                }
            }
        }
        let folder = self.world.folder().to_owned();
        read(&folder, when, &mut self.evidence);
    }
}
