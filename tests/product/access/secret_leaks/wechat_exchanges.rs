//! Exchanges with WeChat: secrets go out, and WeChat's answers contain secrets.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Effect, Fault, PushEvent, PushFormat, PushMode, PushSettings};

use super::{APP, CALLBACK_KEY, CALLBACK_TOKEN, CANARY, Case, NEXT_APP_SECRET, SEND, SPOILED};
use crate::{
    drop_in::wechat_token,
    world::{TEMPLATE, id, message},
};

impl Case {
    /// Sends that succeed, that WeChat refuses with a secret in the text, or that break.
    pub(super) async fn send_and_fail(&mut self) {
        let wechat = self.world.wechat();
        let hand_out = format!("/v1/apps/{APP}/access-token");
        let handed = self.tenant.client.post(&hand_out, &Value::Null).await;
        let handed = handed.expect(200)["access_token"].clone();
        let token = handed.as_str().expect("a token").to_owned();
        self.secrets.add("access_token", token.as_bytes());
        let echo = format!("invalid credential {token} at ?access_token={token}&x");
        let errcode = |errcode| Effect::Errcode {
            errcode,
            errmsg: Some(echo.clone()),
        };
        let page = Some(format!("<html>{echo}</html>"));
        let effects = [
            None,
            Some(errcode(43101)),
            Some(errcode(40001)),
            Some(Effect::Status {
                status: 502,
                body: page,
            }),
            Some(Effect::BreakAfter),
            Some(Effect::BreakBefore),
        ];
        let mut sent = Vec::new();
        for effect in effects {
            if let Some(effect) = effect {
                let fault = Fault::next(1, effect).for_path(SEND);
                wechat.add_fault(fault);
            }
            let mut message = message(CANARY);
            message["on_uncertain"] = json!("retry");
            let path = format!("/v1/apps/{APP}/messages");
            let request = self.tenant.client.request(Method::POST, &path).await;
            let request = request.header("Prefer", "wait=1").json(&message);
            sent.push(self.asked(request).await);
            self.learn_tokens();
        }
        wechat.clear_faults();
        // WeChat's token endpoints get the AppSecret and may repeat the AppSecret in an answer.
        let told = Effect::Errcode {
            errcode: 40125,
            errmsg: Some(format!(
                "invalid appsecret {NEXT_APP_SECRET}, secret={NEXT_APP_SECRET}&"
            )),
        };
        wechat.kill_tokens(APP);
        for path in ["/cgi-bin/stable_token", "/cgi-bin/token"] {
            wechat.add_fault(Fault::next(2, told.clone()).for_path(path));
        }
        for path in ["verify", "token/refresh"] {
            let path = format!("/v1/apps/{APP}/{path}");
            self.call(Method::POST, &path, &json!({})).await;
        }
        let secret = json!({"secret": NEXT_APP_SECRET});
        let put = format!("/v1/apps/{APP}/secret");
        self.call(Method::PUT, &put, &secret).await;
        wechat.clear_faults();
        self.call(Method::PUT, &put, &secret).await;
        sent.push(self.tenant.send(APP, &message(CANARY)).await);
        join_all(sent.iter().map(|message| self.tenant.wait_ended(message))).await;
        self.learn_tokens();

        self.world.wechat_goes_away().await;
        let waits = self.tenant.send(APP, &message(CANARY)).await;
        let tried = self.tenant.client.time().eventually("a try", || async {
            let message = self.tenant.read(&waits).await;
            (!message["attempts"].as_array()?.is_empty()).then_some(())
        });
        tried.await;
        for path in ["verify", "token/refresh"] {
            let path = format!("/v1/apps/{APP}/{path}");
            self.call(Method::POST, &path, &json!({})).await;
        }
        self.world.wechat_comes_back().await;
        let refresh = format!("/v1/apps/{APP}/token/refresh");
        self.call(Method::POST, &refresh, &json!({})).await;
        self.tenant.wait_ended(&waits).await;
        self.learn_tokens();
        for message in sent.iter().chain([&waits]) {
            self.get(&format!("/v1/messages/{}", id(message))).await;
        }
    }

    pub(super) async fn speak_as_wechat(&mut self) {
        let client = self.tenant.client.clone();
        let token = wechat_token(&client, APP).await;
        self.secrets.add("drop-in token", token.as_bytes());
        let secret = client.key().client_secret.clone();
        let wrong = format!("{}x", &secret[..secret.len() - 1]);
        self.secrets.add("mistyped client secret", wrong.as_bytes());
        for secret in [&*secret, &wrong] {
            let path = format!(
                "/cgi-bin/token?grant_type=client_credential&appid={SPOILED}x&secret={secret}"
            );
            self.asked(client.bare(Method::GET, &path)).await;
            let body = json!({"grant_type": "client_credential", "appid": APP, "secret": secret, "force_refresh": "no"});
            let stable = client.bare(Method::POST, "/cgi-bin/stable_token");
            self.asked(stable.json(&body)).await;
        }
        let echo = Effect::Errcode {
            errcode: 47003,
            errmsg: Some(format!("{:?}", self.world.wechat().tokens(APP))),
        };
        for path in [SEND, "/cgi-bin/menu/create"] {
            let fault = Fault::next(1, echo.clone()).for_path(path);
            self.world.wechat().add_fault(fault);
            for token in [&*token, &token[..token.len() - 4]] {
                let path = format!("{path}?access_token={token}");
                let request = client.bare(Method::POST, &path);
                self.asked(request.json(&message(CANARY))).await;
            }
        }
        let get = format!("/wxaapi/newtmpl/gettemplate?access_token={token}");
        self.asked(client.bare(Method::GET, &get)).await;
        let with_secret = format!("/cgi-bin/menu/get?access_token={token}&secret={secret}");
        self.asked(client.bare(Method::GET, &with_secret)).await;
        self.world.wechat_goes_away().await;
        self.asked(client.bare(Method::GET, &get)).await;
        self.world.wechat_comes_back().await;
    }

    pub(super) async fn hear_wechat(&mut self) {
        let push = PushSettings {
            url: String::new(),
            token: CALLBACK_TOKEN.into(),
            aes_key: Some(CALLBACK_KEY.into()),
            mode: PushMode::Safe,
            format: PushFormat::Xml,
            receipts: false,
        };
        let wechat = self.world.wechat();
        wechat.change_app(APP, |app| app.push = Some(push));
        let event = PushEvent::delivered(CANARY, TEMPLATE, 7);
        let letter = wechat.letter(APP, &event).expect("a letter");
        for query in [
            letter.query.clone(),
            letter.query.replace("nonce=", "nonce=1"),
        ] {
            let path = format!("/callbacks/{APP}?{query}");
            let request = self.tenant.client.bare(Method::POST, &path);
            self.asked(request.body(letter.body.clone())).await;
        }
    }
}
