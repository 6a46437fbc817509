//! Third-party programs that call the gateway, each in a separate process: SDKs that use the gateway in place of
//! WeChat, clients that were generated from the OpenAPI document, and a fuzzer that compares the answers with the
//! document. The programs are in `tests/clients`; `make setup` installs the dependencies.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use domain::{
    app::AppId,
    secret::{CallbackAesKey, CallbackToken},
};
use serde_json::json;
use simulator::AccountKind;
use wechat::callback::Keys;

use crate::world::{Client, Mode, World};

/// The app of `wxgate dev`, which the programs use for sends.
const APP: &str = "wxde00000000000001";
/// The official account of `wxgate dev`.
const OFFICIAL: &str = "wxde00000000000002";

both_modes!(
    sdks_send_through_the_gateway_on_one_token,
    an_sdk_pushes_events_as_wechat_does,
    webhooks_are_verified_in_another_language,
    the_gateway_conforms_to_its_document,
);

/// Runs in one mode only: generating and running takes a while, and clients see no difference between the modes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_by_openapi_python_client_work() {
    generated("openapi-python-client").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_by_openapi_generator_work() {
    generated("openapi-generator-python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_by_openapi_typescript_work() {
    generated("openapi-typescript").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_by_hey_api_work() {
    generated("hey-api").await;
}

/// The environment of a program: the world, and a folder with the keys.
struct Stage {
    world: World,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn set(mode: Mode) -> Self {
        let world = World::start(mode).await;
        let tenant = world.tenant("clients").await;
        let wechat = world.wechat();
        wechat.change_app(OFFICIAL, |app| app.kind = AccountKind::OfficialAccount);
        tenant.app(APP).await;
        let official = json!({"kind": "official_account"});
        tenant.app_with(OFFICIAL, official).await;

        let pair = |client: &Client| {
            let key = client.key();
            json!({"client_id": key.client_id, "client_secret": key.client_secret})
        };
        let keys = json!({"operator": pair(&world.operator()), "tenant": pair(&tenant.client)});
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.json"), keys.to_string()).unwrap();
        Self { world, folder }
    }

    /// Runs a program of `tests/clients` to its end, and asserts success.
    async fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = command(program, self.folder.path());
        command
            .args(arguments)
            .args(["--gateway", self.world.url(0)])
            .arg("--keys")
            .arg(self.folder.path().join("keys.json"));
        end_well(command).await;
    }
}

/// The command that runs a program of `tests/clients` in `folder`.
fn command(program: &str, folder: &Path) -> Command {
    let script = programs().join(program);
    let language = match script.extension().and_then(OsStr::to_str) {
        Some("py") => "python",
        _ => "node",
    };
    let mut command = Command::new(tools().join("python/bin").join(language));
    command
        .arg(script)
        .env("NODE_PATH", tools().join("node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(folder);
    command
}

async fn end_well(mut command: Command) {
    let words = format!("{command:?}");
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output = ended.await.unwrap().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {said}\n{complaint}");
}

/// The folder of the programs.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// The folder of the tools that `make setup` installs: `target/debug/deps/product-…` → `target/tools`.
fn tools() -> &'static Path {
    static TOOLS: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().expect("this program's place");
        let target = test.ancestors().nth(3).expect("target");
        let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/tools");
        let checked = Command::new(check)
            .arg("--check")
            .env("CARGO_TARGET_DIR", target)
            .output()
            .expect("scripts/tools runs");
        let complaint = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{complaint}");
        target.join("tools")
    });
    &TOOLS
}

async fn generated(name: &str) {
    let stage = Stage::set(Mode::Embedded).await;
    stage.run("generate.py", &[name]).await;
}

async fn sdks_send_through_the_gateway_on_one_token(mode: Mode) {
    let stage = Stage::set(mode).await;
    let wechat = stage.world.wechat_url();
    // The second program checks how many tokens the gateway has fetched for both programs.
    for program in ["send_with_co_wechat_api.cjs", "send_with_wechatpy.py"] {
        stage.run(program, &["--simulator", &wechat]).await;
    }
}

async fn an_sdk_pushes_events_as_wechat_does(mode: Mode) {
    let stage = Stage::set(mode).await;
    stage.run("push_with_wechatpy.py", &[]).await;
}

/// Tests all lengths that the last cipher block of a message can have.
#[tokio::test]
async fn an_sdk_reads_what_is_encrypted_here() {
    let folder = tempfile::tempdir().unwrap();
    let (token, aes_key) = ("AAAAA", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG");
    let keys = Keys::new(
        CallbackToken::new(token),
        Some(&CallbackAesKey::new(aes_key)),
    )
    .unwrap();
    let appid = AppId::parse(APP).unwrap();
    let replies = (0..=33u8).map(|length| {
        let message = "件".to_owned() + &"x".repeat(length.into());
        let reply = keys
            .reply(&appid, message.as_bytes(), 1_780_281_960, "n", [length; 16])
            .unwrap();
        json!({
            "message": message, "xml": reply.to_xml(), "signature": reply.msg_signature,
            "timestamp": "1780281960", "nonce": reply.nonce,
        })
    });
    let replies: Vec<_> = replies.collect();
    let file = folder.path().join("replies.json");
    let given = json!({"token": token, "aes_key": aes_key, "appid": APP, "replies": replies});
    std::fs::write(&file, given.to_string()).unwrap();
    let mut command = command("read_with_wechatpy.py", folder.path());
    command.arg(file);
    end_well(command).await;
}

async fn webhooks_are_verified_in_another_language(mode: Mode) {
    let stage = Stage::set(mode).await;
    stage.run("receive_with_standardwebhooks.py", &[]).await;
}

async fn the_gateway_conforms_to_its_document(mode: Mode) {
    let stage = Stage::set(mode).await;
    let wechat = stage.world.wechat_url();
    let simulator = ["--simulator", wechat.as_str()];
    stage.run("schemathesis/run.py", &simulator).await;
}
