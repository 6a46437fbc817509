//! The text that `wxgate dev` prints: addresses, keys, and commands to paste.

use serde_json::Value;

use super::{Demo, client};

/// The addresses and the demo that the text describes.
#[derive(Debug)]
pub(crate) struct Guide<'a> {
    /// The URL of the gateway.
    pub(crate) url: &'a str,
    /// The URL of the simulator.
    pub(crate) simulator: &'a str,
    /// The demo.
    pub(crate) demo: &'a Demo,
}

impl Guide<'_> {
    /// The whole text.
    pub(crate) fn text(&self) -> String {
        let Self {
            url,
            simulator,
            demo,
        } = self;
        let (keys, file) = (&demo.keys, demo.file.display());
        format!(
            "\n  API         {url}/v1\n  Docs        {url}/docs\n  Console     {url}/console\n  Simulator   {simulator}/_sim/\n\n\
             \x20 Demo app    {appid} of tenant {tenant}\n  Tenant key  {tenant_secret}\n  Operator    {operator_secret}\n\
             \x20 (Sign in to the console with either secret. The file {file} keeps both.)\n\n\
             Paste these lines into a shell: they get a token, send a message and read the message back.\n\n{curl}\n\n\
             Ctrl-C stops the gateway and the simulator.\n",
            appid = demo.appid,
            tenant = demo.tenant,
            tenant_secret = keys.tenant.client_secret,
            operator_secret = keys.operator.client_secret,
            curl = self.curl(),
        )
    }

    /// Commands that run unchanged in any POSIX shell with curl and sed.
    pub(crate) fn curl(&self) -> String {
        let Self { url, demo, .. } = self;
        let key = &demo.keys.tenant;
        let body = client::subscribe_body(&demo.openid);
        [
            format!(
                "TOKEN=$(curl -s -u '{}:{}' -d grant_type=client_credentials {url}/oauth/token | sed -n 's/.*\"access_token\" *: *\"\\([^\"]*\\)\".*/\\1/p')",
                key.client_id, key.client_secret
            ),
            format!(
                "SENT=$(curl -s {url}/v1/apps/{}/messages -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -H 'Prefer: wait={}' -d '{body}')",
                demo.appid,
                client::WAIT
            ),
            "printf '%s\\n' \"$SENT\"".to_owned(),
            "MESSAGE=$(printf '%s\\n' \"$SENT\" | sed -n 's/.*\"id\" *: *\"\\(msg_[^\"]*\\)\".*/\\1/p')".to_owned(),
            format!("curl -s {url}/v1/messages/$MESSAGE -H \"Authorization: Bearer $TOKEN\"; echo"),
        ]
        .join("\n")
    }
}

/// The result of a message, in one line.
pub(crate) fn answer(message: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attempt = &message["attempts"][0];
    format!(
        "{:<9} message {} is {}: WeChat answered {} {} after {} ms, msgid {}",
        text(&message["channel"]),
        text(&message["id"]),
        text(&message["status"]),
        attempt["errcode"],
        text(&attempt["errmsg"]),
        attempt["duration_ms"],
        message["msgid"].as_str().unwrap_or("none"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{DemoCredentials, DemoKeys};
    use domain::{app::AppId, id};
    use serde_json::json;

    fn key(id: &str) -> DemoCredentials {
        DemoCredentials {
            client_id: format!("key_{id}"),
            client_secret: format!("wxg_{id}"),
        }
    }

    #[test]
    fn the_lines_can_be_pasted() {
        let demo = Demo {
            tenant: id::new(chrono::DateTime::UNIX_EPOCH, 0, 1),
            appid: AppId::parse("wxde00000000000001").unwrap(),
            keys: DemoKeys {
                operator: key("o"),
                tenant: key("t"),
            },
            openid: "oDEMO".into(),
            file: "wxgate-data/dev.json".into(),
        };
        let guide = Guide {
            url: "http://127.0.0.1:8080",
            simulator: "http://127.0.0.1:8090",
            demo: &demo,
        };
        let lines = guide.curl();
        let checked = std::process::Command::new("sh")
            .args(["-n", "-c", &lines])
            .status()
            .unwrap();
        assert!(checked.success(), "{lines}");
        assert!(
            lines.contains("-u 'key_t:wxg_t'")
                && lines.contains("Prefer: wait=5")
                && !lines.contains("jq"),
            "{lines}"
        );
        assert!(
            !client::subscribe_body(&demo.openid)
                .to_string()
                .contains('\'')
        );
        assert!(guide.text().contains(&lines) && guide.text().contains("/console"));
    }

    #[test]
    fn the_lines_read_what_the_api_answers() {
        let sed = |script: &str, input: &str| {
            let line = format!("printf '%s' '{input}' | sed -n '{script}'");
            let output = std::process::Command::new("sh")
                .args(["-c", &line])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let token = json!({"access_token": "a.b-c_d", "token_type": "Bearer"}).to_string();
        assert_eq!(
            sed("s/.*\"access_token\" *: *\"\\([^\"]*\\)\".*/\\1/p", &token),
            "a.b-c_d"
        );
        let message = json!({"id": "msg_1", "appid": "wx", "msgid": "77"}).to_string();
        assert_eq!(
            sed("s/.*\"id\" *: *\"\\(msg_[^\"]*\\)\".*/\\1/p", &message),
            "msg_1"
        );
    }

    #[test]
    fn an_answer_is_one_line() {
        let message = json!({"channel": "subscribe", "id": "msg_1", "status": "sent", "msgid": "7", "attempts": [{"errcode": 0, "errmsg": "ok", "duration_ms": 3}]});
        assert_eq!(
            answer(&message),
            "subscribe message msg_1 is sent: WeChat answered 0 ok after 3 ms, msgid 7"
        );
    }
}
