//! The OpenAPI document: what the routes declare, and what holds for all routes.

mod conditions;
mod events;
mod examples;
mod flat;
mod headers;
mod links;
mod names;
mod parameters;
mod problems;
mod three_zero;

use domain::scope::Scope;
use serde::Serialize;
use utoipa::openapi::{
    Components, OpenApi, PathItem, RefOr,
    path::Operation,
    security::{ClientCredentials, Flow, OAuth2, Scopes, SecurityScheme},
};

use self::headers::{rate_limit, request_id};
pub(crate) use self::names::{CALLBACKS, DROP_IN, SCHEME, WECHAT_SCHEME};
pub(crate) use self::problems::{
    Always, Body, Conflict, Counted, Guarded, Missing, Often, Pushed, Query, Signed, Unfit,
    Unready, Wechat,
};
use crate::{drop_in, problem::ProblemBody, routes};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "wxgate",
        description = "Notification gateway for WeChat mini-programs and official accounts.\n\nFetch an access token \
            at `POST /oauth/token` with the client id and secret of an API key, then send the token as `Authorization: \
            Bearer …`. Errors are `application/problem+json` (RFC 9457); `code` is for programs, `detail` says what to \
            do next. Every answer has `X-Request-Id`. Times are RFC 3339 in UTC. The gateway refuses unknown fields.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "oauth", description = "Access tokens (RFC 6749, RFC 8414)."),
        (name = "messages", description = "Send messages and read their outcomes."),
        (name = "grants", description = "Grants: collected form ids and accepted templates, which permit messages to users."),
        (name = "apps", description = "Mini-programs and official accounts."),
        (name = "webhooks", description = "Webhook endpoints of a tenant, which receive events about messages and apps."),
        (name = "keys", description = "A tenant's own API keys."),
        (name = "tenants", description = "Tenants and their keys: for operators."),
        (name = DROP_IN, description = "WeChat's own calls, for code that calls WeChat through an SDK: give the SDK the gateway's URL as the base URL and a client secret as the AppSecret. Answers have HTTP 200 and WeChat's `errcode`."),
        (name = CALLBACKS, description = "The endpoints that WeChat calls. WeChat's signature is the credential; other \
            clients do not need these endpoints."),
        (name = "audit", description = "The audit log: each action, its actor and the actor's address."),
        (name = "operations", description = "Health, metrics, this document."),
    ),
)]
struct Base;

/// The part of the routes that a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The gateway's own API, from which clients are generated. Served as `/openapi.json`.
    Api,
    /// The drop-in surface: WeChat's own calls for SDKs, and WeChat's callbacks. Served as `/openapi/drop-in.json`.
    DropIn,
}

impl Part {
    /// Both parts.
    pub const ALL: [Self; 2] = [Self::Api, Self::DropIn];

    fn has(self, item: &mut PathItem) -> bool {
        let mut tags = links::operations(item).flat_map(|one| one.tags.iter().flatten());
        let is_wechats = tags.any(|tag| [DROP_IN, CALLBACKS].contains(&tag.as_str()));
        is_wechats == (self == Self::DropIn)
    }

    /// The document of this part, in OpenAPI 3.1.
    pub fn document(self) -> OpenApi {
        let mut document = openapi();
        document.paths.paths.retain(|_, item| self.has(item));
        if self == Self::DropIn {
            document.webhooks = None;
            "wxgate in WeChat's form".clone_into(&mut document.info.title);
            flat::prune_responses(&mut document);
            document.info.description = Some(
                "WeChat's own calls, for code that calls WeChat through an SDK, and the endpoints that WeChat calls. \
                 The gateway's own API is in another document, `/openapi.json`."
                    .to_owned(),
            );
        }
        let mut used = Vec::new();
        for item in document.paths.paths.values_mut() {
            used.extend(
                links::operations(item).flat_map(|one| one.tags.clone().unwrap_or_default()),
            );
        }
        if let Some(tags) = &mut document.tags {
            tags.retain(|tag| used.contains(&tag.name));
        }
        flat::prune(&mut document);
        document
    }

    /// The document of this part as JSON text, as served and as stored in `openapi/`.
    pub fn json(self) -> String {
        text(&self.document())
    }

    /// The document of this part as JSON text, in OpenAPI 3.0.
    pub fn json_3_0(self) -> String {
        let mut document = serde_json::to_value(self.document()).unwrap_or_default();
        three_zero::convert(&mut document);
        text(&document)
    }
}

/// The OpenAPI document of all routes.
pub fn openapi() -> OpenApi {
    let mut document = <Base as utoipa::OpenApi>::openapi();
    document.merge(routes::guarded().into_openapi());
    document.merge(routes::open().into_openapi());
    drop_in::document(&mut document);
    events::describe(&mut document);
    let components = document.components.get_or_insert_default();
    describe_guard(components);
    problems::describe(components);
    flat::flatten(components);
    for (path, item) in &mut document.paths.paths {
        for operation in links::operations(item) {
            conditions::describe(operation);
            problems::gather(operation, components);
            describe_headers(operation, path.starts_with("/v1/"));
            parameters::describe(operation);
        }
    }
    links::describe(&mut document);
    flat::name_pages(&mut document);
    flat::prune(&mut document);
    examples::describe(&mut document);
    document
}

fn text(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

/// Adds the security scheme.
fn describe_guard(components: &mut Components) {
    let scopes: Scopes = Scope::ALL
        .iter()
        .map(|scope| (scope.to_string(), meaning(*scope).to_owned()))
        .collect();
    let flow = Flow::ClientCredentials(ClientCredentials::new("/oauth/token", scopes));
    let about =
        "The client id and secret of an API key, exchanged for an access token of 15 minutes.";
    components.add_security_scheme(
        SCHEME,
        SecurityScheme::OAuth2(OAuth2::with_description([flow], about)),
    );
}

/// Adds the headers of every answer to the responses that the operation documents itself.
fn describe_headers(operation: &mut Operation, limited: bool) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.insert("X-Request-Id".into(), request_id());
            if limited {
                response.headers.extend(rate_limit());
            }
        }
    }
}

/// What a scope permits.
fn meaning(scope: Scope) -> &'static str {
    match scope {
        Scope::MessagesSend => "Send, cancel and retry messages",
        Scope::MessagesRead => "Read messages and their attempts",
        Scope::GrantsWrite => "Add form ids and subscribe grants",
        Scope::GrantsRead => "Read the pool, the ledger and reach estimates",
        Scope::AppsRead => "Read apps, token state and quota",
        Scope::AppsWrite => "Register, change and remove apps",
        Scope::TokensRead => "Read the value of WeChat's access token",
        Scope::TemplatesRead => "Read synced templates",
        Scope::WebhooksWrite => "Manage webhooks",
        Scope::WebhooksRead => "Read webhooks and their deliveries",
        Scope::KeysWrite => "Create and revoke the tenant's keys",
        Scope::AuditRead => "Read the audit log",
        Scope::WechatProxy => "Forward other WeChat calls through the gateway",
        Scope::Operator => "Run the gateway: tenants and their keys",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every operation as (method, path, JSON).
    fn operations() -> Vec<(String, String, Value)> {
        let document = serde_json::to_value(openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().clone();
        let each = paths.into_iter().flat_map(|(path, item)| {
            let item = item.as_object().unwrap().clone();
            item.into_iter()
                .map(move |(method, operation)| (method, path.clone(), operation))
        });
        each.collect()
    }

    fn statuses(operation: &Value) -> Vec<&str> {
        operation["responses"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect()
    }

    #[test]
    fn the_kept_documents_are_the_generated_ones() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi");
        for (name, generated) in [
            ("openapi.json", Part::Api.json()),
            ("openapi-3.0.json", Part::Api.json_3_0()),
            ("drop-in.json", Part::DropIn.json()),
        ] {
            let kept = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
            assert!(
                kept == generated,
                "openapi/{name} is out of date: run `make openapi` and look at the difference"
            );
        }
    }

    #[test]
    fn everything_in_v1_wants_one_scope_and_documents_the_guards_refusals() {
        for (method, path, operation) in operations()
            .into_iter()
            .filter(|(_, path, _)| path.starts_with("/v1/"))
        {
            let security = operation["security"].as_array().unwrap();
            let scopes = security[0][SCHEME].as_array().unwrap();
            assert!(
                security.len() == 1 && scopes.len() == 1,
                "{method} {path} wants {security:?}"
            );
            assert!(
                scopes[0].as_str().unwrap().parse::<Scope>().is_ok(),
                "{method} {path} wants {scopes:?}"
            );
            for status in ["401", "403", "429", "500", "503"] {
                assert!(
                    statuses(&operation).contains(&status),
                    "{method} {path} lacks {status}"
                );
            }
            assert_eq!(
                path.contains('{'),
                statuses(&operation).contains(&"404"),
                "{method} {path}: 404"
            );
            let has_body = !operation["requestBody"].is_null();
            assert_eq!(
                has_body,
                statuses(&operation).contains(&"415"),
                "{method} {path}: 415"
            );
        }
    }

    #[test]
    fn only_v1_and_wechats_own_calls_are_guarded() {
        for (method, path, operation) in operations() {
            let security = &operation["security"][0];
            assert_eq!(
                path.starts_with("/v1/"),
                !security[SCHEME].is_null(),
                "{method} {path}"
            );
            let is_drop_in = operation["tags"] == serde_json::json!(["drop-in"]);
            let takes_a_secret = path.ends_with("token") || path == "/sns/jscode2session";
            assert_eq!(
                is_drop_in && !takes_a_secret,
                !security[WECHAT_SCHEME].is_null(),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn every_operation_says_what_it_is() {
        let mut ids = Vec::new();
        for (method, path, operation) in operations() {
            for member in ["operationId", "summary", "description"] {
                assert!(
                    operation[member]
                        .as_str()
                        .is_some_and(|text| !text.is_empty()),
                    "{method} {path} lacks {member}"
                );
            }
            assert!(
                operation["tags"]
                    .as_array()
                    .is_some_and(|tags| tags.len() == 1),
                "{method} {path} wants one tag"
            );
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(!ids.contains(&id), "{id} names two operations");
            ids.push(id);
            for (status, response) in operation["responses"].as_object().unwrap() {
                let described = response["$ref"].is_string()
                    || response["description"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty());
                assert!(described, "{method} {path} {status}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for part in Part::ALL {
            let document = serde_json::to_value(part.document()).unwrap();
            let text = document.to_string();
            for reference in text.split("\"$ref\":\"#").skip(1) {
                let pointer = reference.split('"').next().unwrap();
                assert!(document.pointer(pointer).is_some(), "{pointer} is missing");
            }
            assert_eq!(document["openapi"], "3.1.0");
        }
    }

    #[test]
    fn each_operation_is_in_one_of_the_documents() {
        let paths = |document: OpenApi| document.paths.paths.into_keys().collect::<Vec<_>>();
        let [api, drop_in] = Part::ALL.map(|part| paths(part.document()));
        assert!(
            drop_in.contains(&"/callbacks/{appid}".to_owned()),
            "{drop_in:?}"
        );
        assert!(
            drop_in.contains(&"/cgi-bin/token".to_owned()),
            "{drop_in:?}"
        );
        assert!(!api.iter().any(|path| drop_in.contains(path)));
        assert_eq!(api.len() + drop_in.len(), paths(openapi()).len());
        let drop_in = serde_json::to_value(Part::DropIn.document()).unwrap();
        let schemes = drop_in["components"]["securitySchemes"]
            .as_object()
            .unwrap();
        assert_eq!(schemes.keys().collect::<Vec<_>>(), [WECHAT_SCHEME]);
        assert!(drop_in["components"]["schemas"]["Message"].is_null());
    }
}
