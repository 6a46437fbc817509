//! The operations of the OpenAPI document, and valid requests to them.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use super::HOOK;
use crate::world::{Answer, Client, SECRET, World, finish, message};

/// The only members that a refusal may have.
const PROBLEM: [&str; 6] = ["type", "title", "status", "detail", "instance", "code"];
/// The only members of a refusal in WeChat's form.
const REPLY: [&str; 2] = ["errcode", "errmsg"];

/// A body that the operation takes from a permitted caller.
pub(super) fn body(operation: &str) -> Option<Value> {
    let body = match operation {
        "POST /v1/tenants" | "PATCH /v1/tenants/{tenant_id}" | "PATCH /v1/apps/{appid}" => {
            json!({"name": "stranger"})
        }
        "POST /v1/keys" | "POST /v1/tenants/{tenant_id}/keys" => {
            json!({"name": "stranger", "scopes": ["apps:read"]})
        }
        "POST /v1/apps" => json!({"appid": "wx00000000000000c3", "secret": SECRET}),
        "PUT /v1/apps/{appid}/secret" => json!({"secret": "strangers-secret"}),
        "POST /v1/apps/{appid}/messages" => message("o1"),
        "POST /v1/apps/{appid}/messages/batch" => json!({"messages": [message("o1")]}),
        "POST /v1/apps/{appid}/grants" => {
            json!({"grants": [{"kind": "form_id", "openid": "o1", "value": "f1"}]})
        }
        "POST /v1/apps/{appid}/reach" => json!({"template_id": "t", "openids": ["o1"]}),
        "POST /v1/webhooks" => json!({"url": HOOK, "events": ["*"]}),
        "PATCH /v1/webhooks/{webhook_id}" => json!({"status": "disabled"}),
        "POST /v1/webhooks/{webhook_id}/redeliver" => json!({"since": "2020-01-01T00:00:00Z"}),
        _ => return None,
    };
    Some(body)
}

/// The query that the operation needs.
pub(super) fn query(operation: &str) -> &'static str {
    match operation {
        "GET /v1/apps/{appid}/grants" => "?openid=o1",
        _ => "",
    }
}

pub(super) struct Operation {
    method: Method,
    pub(super) path: String,
    /// The scope that the operation needs.
    pub(super) scope: Option<String>,
    /// Whether the operation is one of the drop-in surface: the token is in the query and names the app.
    pub(super) is_wechats: bool,
    body: Option<Value>,
    statuses: BTreeSet<String>,
}

impl Operation {
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(super) fn is_operators(&self) -> bool {
        self.scope.as_deref() == Some("operator")
    }

    /// The scope that a drop-in call needs; the OpenAPI document has no place for that scope.
    pub(super) fn wechats_scope(&self) -> &'static str {
        if self.path.ends_with("/send") {
            "messages:send"
        } else {
            "wechat:proxy"
        }
    }

    /// Calls the operation with these things in the path, with this token.
    pub(super) async fn call(
        &self,
        client: &Client,
        token: Option<&str>,
        things: &BTreeMap<&str, String>,
    ) -> Answer {
        let mut path = self.path.clone();
        for (name, thing) in things {
            path = path.replace(&format!("{{{name}}}"), thing);
        }
        assert!(
            !path.contains('{'),
            "{}: say in access/authorization what stands in its path",
            self.name()
        );
        path.push_str(query(&self.name()));
        let mut request = client.bare(self.method.clone(), &path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &self.body {
            request = request.json(body);
        }
        finish(request).await
    }

    /// Asserts that the answer is the refusal of the document, with nothing besides.
    #[track_caller]
    pub(super) fn refuses(&self, who: &str, answer: &Answer, status: u16, code: &str) {
        let name = self.name();
        let asked = (answer.status.as_u16(), answer.body["code"].as_str());
        assert_eq!(asked, (status, Some(code)), "{name}, {who}: {answer:?}");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.is_some(), "{name}, {who}: {answer:?}");
        assert!(
            self.statuses.contains(&status.to_string()),
            "{name}: {status} is not in the document"
        );
        says_only(answer, &PROBLEM);
    }

    /// Calls the operation as an SDK of WeChat does. Returns the errcode of an answer that has nothing besides.
    pub(super) async fn errcode(&self, client: &Client, token: Option<&str>) -> i64 {
        let mut path = self.path.replace("{path}", "any/call");
        if let Some(token) = token {
            path = format!("{path}?access_token={token}");
        }
        let request = client.bare(self.method.clone(), &path);
        let answer = finish(request.json(&message("o1"))).await;
        says_only(&answer, &REPLY);
        let code = answer.expect(200)["errcode"].as_i64();
        code.expect("an errcode")
    }
}

fn says_only(answer: &Answer, members: &[&str]) {
    let said = answer.body.as_object().expect("an object");
    let more = said.keys().find(|name| !members.contains(&name.as_str()));
    assert!(more.is_none(), "{answer:?}");
}

/// Both documents in one, as the gateway serves them.
pub(super) async fn document(world: &World) -> Value {
    let mut whole = world.anonymous().get("/openapi.json").await.expect(200);
    let more = world.anonymous().get("/openapi/drop-in.json").await;
    let more = more.expect(200);
    for part in ["/paths", "/components/schemas", "/components/responses"] {
        let more = more.pointer(part).and_then(Value::as_object);
        let all = whole.pointer_mut(part).and_then(Value::as_object_mut);
        all.expect(part).extend(more.expect(part).clone());
    }
    whole
}

/// All operations of the documents.
pub(super) async fn operations(world: &World) -> Vec<Operation> {
    let document = document(world).await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method: Method = method.to_ascii_uppercase().parse().expect("a method");
            let name = format!("{method} {path}");
            let scope = operation["security"][0]["oauth2"][0]
                .as_str()
                .map(str::to_owned);
            let is_wechats = !operation["security"][0]["wechat"].is_null();
            let body = body(&name);
            let wants_body = operation.get("requestBody").is_some() && scope.is_some();
            assert!(
                !wants_body || body.is_some(),
                "{name}: add a body for it to access/authorization/operations.rs"
            );
            let statuses = operation["responses"].as_object().expect("responses");
            operations.push(Operation {
                method,
                path: path.clone(),
                scope,
                is_wechats,
                body,
                statuses: statuses.keys().cloned().collect(),
            });
        }
    }
    operations
}
