//! Unauthorized callers: the credentials of each caller, and how the gateway refuses each.

use std::collections::BTreeMap;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::{
    APP, OTHER,
    forgeries::{Forger, Forgery, INVALID, forgery},
    operations::Operation,
};
use crate::{
    drop_in::wechat_token,
    world::{Client, SCOPES, Tenant, World, finish},
};

/// Callers without a right to the owner's things.
pub(super) struct UnauthorizedCallers {
    nobody: Client,
    /// Forgeries of a tenant's token. Each is sent from an address of its own, because failures count by address.
    tenants: Vec<(Client, Forgery)>,
    /// Forgeries of an operator's token.
    operators: Vec<(Client, Forgery)>,
    /// Forgeries of a token of the drop-in surface.
    wechats: Vec<(Client, Forgery)>,
    /// Valid tokens of the owner and of an operator with one scope, by that scope.
    alone: BTreeMap<&'static str, String>,
    /// Tokens with all scopes but one, by the missing scope: the token as issued, and with a scope claim that names all
    /// scopes.
    lacking: BTreeMap<&'static str, [String; 2]>,
    /// The same at the drop-in surface.
    alone_at_wechat: BTreeMap<&'static str, String>,
    lacking_at_wechat: BTreeMap<&'static str, String>,
    /// A token that names the owner's app for another tenant's key.
    usurper: String,
    /// A valid token of `/v1`.
    bearer: String,
}

impl UnauthorizedCallers {
    pub(super) async fn gather(world: &World, owner: &Tenant, other_tenant: &Tenant) -> Self {
        let forger = Forger::of(world).await;
        let (operator, good) = (world.operator().token().await, owner.client.token().await);
        let drop_in = wechat_token(&owner.client, APP).await;
        // The forger works: the gateway accepts a token of the forger in which nothing is wrong.
        let right = forger.with_claims(&good, [("jti", json!("of-the-forger"))]);
        let apps = world.anonymous().bare(Method::GET, "/v1/apps");
        finish(apps.bearer_auth(right)).await.expect(200);

        let mut tenants = forger.forgeries(&good);
        let gone = world.key_of(&owner.id, &SCOPES).await;
        let (token, path) = (
            gone.token().await,
            format!("/v1/keys/{}", gone.key().client_id),
        );
        owner.client.delete(&path).await.expect(204);
        for (name, token) in [
            ("of a revoked key", token),
            ("of the drop-in surface", drop_in.clone()),
            ("a session of the console", owner.client.session().await),
        ] {
            tenants.push(forgery(name, token, 0));
        }
        let session = |token| forgery("a session of the console", token, INVALID);
        let mut operators = forger.forgeries(&operator);
        operators.push(session(world.operator().session().await));
        let mut wechats = forger.forgeries(&drop_in);
        wechats.push(session(owner.client.session().await));

        let everything = json!(format!("{} operator", SCOPES.join(" ")));
        let token_for = async |client: &Client, scope| {
            let answer = client.fetch_token(Some(scope)).await.expect(200);
            answer["access_token"].as_str().expect("a token").to_owned()
        };
        let (mut alone, mut lacking) = (BTreeMap::new(), BTreeMap::new());
        let (mut alone_at_wechat, mut lacking_at_wechat) = (BTreeMap::new(), BTreeMap::new());
        alone.insert("operator", token_for(&world.operator(), "operator").await);
        let boasting = |token: String| {
            let more = forger.with_claims(&token, [("scope", everything.clone())]);
            [token, more]
        };
        lacking.insert("operator", boasting(good.clone()));
        for scope in SCOPES {
            alone.insert(scope, token_for(&owner.client, scope).await);
            let key = world.key_of(&owner.id, &[scope]).await;
            alone_at_wechat.insert(scope, wechat_token(&key, APP).await);
            let others: Vec<&str> = SCOPES.into_iter().filter(|other| *other != scope).collect();
            let key = world.key_of(&owner.id, &others).await;
            lacking.insert(scope, boasting(key.token().await));
            lacking_at_wechat.insert(scope, wechat_token(&key, APP).await);
        }
        let theirs = wechat_token(&other_tenant.client, OTHER).await;
        Self {
            nobody: world.anonymous(),
            tenants: placed(world, tenants),
            operators: placed(world, operators),
            wechats: placed(world, wechats),
            alone,
            lacking,
            alone_at_wechat,
            lacking_at_wechat,
            usurper: forger.with_claims(&theirs, [("appid", json!(APP))]),
            bearer: operator,
        }
    }

    /// Calls the operation without a token, and with each forged token.
    pub(super) async fn try_tokens(&self, operation: &Operation, things: &BTreeMap<&str, String>) {
        let answer = operation.call(&self.nobody, None, things).await;
        operation.refuses("nobody", &answer, 401, "unauthorized");
        let forged = if operation.is_operators() {
            &self.operators
        } else {
            &self.tenants
        };
        let tries = forged.iter().map(async |(client, forgery)| {
            let answer = operation.call(client, Some(&forgery.token), things).await;
            operation.refuses(forgery.name, &answer, 401, "unauthorized");
        });
        join_all(tries).await;
    }

    /// Calls the operation with each scope but the needed one, with all of those together, and with a token that claims
    /// all.
    pub(super) async fn try_scopes(
        &self,
        operation: &Operation,
        scope: &str,
        things: &BTreeMap<&str, String>,
    ) {
        let others = self.alone.iter().filter(|(other, _)| **other != scope);
        let wrong = others.map(|(_, token)| token).chain(&self.lacking[scope]);
        let tries = wrong.map(async |token| {
            let answer = operation.call(&self.nobody, Some(token), things).await;
            operation.refuses("the wrong scope", &answer, 403, "insufficient_scope");
        });
        join_all(tries).await;
    }

    /// Calls an operation of the drop-in surface, which refuses in WeChat's form. The token names the app and the call
    /// names nothing else, so only a token that names another tenant's app can reach that app.
    pub(super) async fn try_as_wechats(&self, operation: &Operation) {
        let name = operation.name();
        let scope = operation.wechats_scope();
        let others = self
            .alone_at_wechat
            .iter()
            .filter(|(other, _)| **other != scope);
        let wrong = others
            .map(|(_, token)| token)
            .chain([&self.lacking_at_wechat[scope]]);
        let wrong = wrong.map(|token| (Some(token), 48001));
        let tries = [
            (None, 41001),
            (Some(&self.bearer), 40001),
            (Some(&self.usurper), 40013),
        ];
        for (token, errcode) in wrong.chain(tries) {
            let told = operation
                .errcode(&self.nobody, token.map(String::as_str))
                .await;
            assert_eq!(told, errcode, "{name}");
        }
        let tries = self.wechats.iter().map(async |(client, forgery)| {
            let told = operation.errcode(client, Some(&forgery.token)).await;
            assert_eq!(told, forgery.errcode, "{name}, {}", forgery.name);
        });
        join_all(tries).await;
    }
}

/// Gives each forgery a client with an address of its own.
fn placed(world: &World, forgeries: Vec<Forgery>) -> Vec<(Client, Forgery)> {
    let client = world.anonymous();
    let numbered = (1..).zip(forgeries);
    numbered
        .map(|(number, forgery)| (client.calling_from([127, 0, 9, number]), forgery))
        .collect()
}
