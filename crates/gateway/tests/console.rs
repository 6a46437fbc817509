//! The console over HTTP: access, the visible data of operators and tenants, and the limits of a session.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use delivery::{CallbackSettings, Registration};
use domain::{
    app::{AppId, AppKind, TokenMode},
    id::TenantId,
    scope::{Scope, ScopeSet},
    seal::MasterKey,
    secret::{AppSecret, ClientSecret},
    tenant::TenantLimits,
};
use reqwest::{Response, StatusCode, header, redirect::Policy};
use tenancy::{KeyOwner, NewKey};
use wxgate::{Config, Gateway};

const APP: &str = "wx0a1b2c3d4e5f6789";

struct Site {
    gateway: Gateway,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/wxgate.db", folder.path().display());
        let config = Config::new(&url, None, MasterKey::from_bytes([7; 32])).unwrap();
        let gateway = Gateway::start(config, coord::Clock::system())
            .await
            .unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(10));
        Self {
            gateway,
            http: http.build().unwrap(),
            _folder: folder,
        }
    }

    async fn tenant_with_app(&self, name: &str, appid: &str) -> TenantId {
        let tenant = self
            .gateway
            .tenancy()
            .create_tenant(name, TenantLimits::default())
            .await
            .unwrap()
            .id;
        let app = Registration {
            appid: AppId::parse(appid).unwrap(),
            secret: AppSecret::new("s"),
            name: name.to_owned(),
            kind: AppKind::MiniProgram,
            token_mode: TokenMode::Stable,
            daily_quota: None,
            grant_policy: domain::grant::GrantPolicy::default(),
            value_rules: domain::app::ValueRules::default(),
            verify: false,
            callback: CallbackSettings::default(),
        };
        self.gateway
            .delivery()
            .apps()
            .register(tenant, app)
            .await
            .unwrap();
        tenant
    }

    async fn secret(&self, owner: KeyOwner, scopes: ScopeSet) -> String {
        let new = NewKey {
            name: "console".to_owned(),
            scopes,
            expires_at: None,
        };
        self.gateway
            .tenancy()
            .create_key(owner, new, None)
            .await
            .unwrap()
            .secret
            .expose()
            .to_owned()
    }

    async fn sign_in(&self, secret: &str) -> Response {
        let request = self
            .http
            .post(format!("{}/console/sign-in", self.gateway.base_url()));
        request
            .header(header::ORIGIN, self.gateway.base_url())
            .form(&[("client_secret", secret)])
            .send()
            .await
            .unwrap()
    }

    async fn session(&self, secret: &str) -> String {
        let answer = self.sign_in(secret).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let cookie = answer.headers()[header::SET_COOKIE]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            cookie.contains("HttpOnly")
                && cookie.contains("SameSite=Strict")
                && cookie.contains("Path=/console"),
            "{cookie}"
        );
        cookie.split(';').next().unwrap().to_owned()
    }

    async fn look(&self, path: &str, cookie: &str) -> (StatusCode, String) {
        let request = self
            .http
            .get(format!("{}{path}", self.gateway.base_url()))
            .header(header::COOKIE, cookie);
        let answer = request.send().await.unwrap();
        assert!(answer.headers().contains_key("x-request-id"));
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        (answer.status(), answer.text().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_everything_and_tenants_see_their_own() {
    let site = Site::open().await;
    let acme = site.tenant_with_app("Acme <b>", APP).await;
    let other = site.tenant_with_app("Other", "wx00000000000000ff").await;

    let operator = site
        .session(&site.secret(KeyOwner::Operator, ScopeSet::all()).await)
        .await;
    let (status, page) = site.look("/console", &operator).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        page.contains("Acme &#60;b&#62;")
            && page.contains("wx00000000000000ff")
            && !page.contains("Acme <b>"),
        "{page}"
    );

    let tenant = site
        .session(
            &site
                .secret(KeyOwner::Tenant(acme), ScopeSet::tenant())
                .await,
        )
        .await;
    let (status, page) = site.look("/console", &tenant).await;
    assert!(
        status == StatusCode::OK && page.contains(APP) && !page.contains("wx00000000000000ff"),
        "{page}"
    );
    assert_eq!(
        site.look(&format!("/console/apps/{APP}"), &tenant).await.0,
        StatusCode::OK
    );
    for path in [
        "/console/apps/wx00000000000000ff",
        &format!("/console/tenants/{other}"),
        "/console/apps/nonsense",
        "/console/tenants/nonsense",
    ] {
        assert_eq!(
            site.look(path, &tenant).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_with_a_page() {
    let site = Site::open().await;
    let url = format!("{}/console/sign-in", site.gateway.base_url());
    for (request, status) in [
        (site.http.post(&url).form(&[("other", "field")]), 422),
        (site.http.post(&url).body("no form"), 415),
        (site.http.delete(&url), 405),
    ] {
        let request = request.header("x-request-id", "of-the-test");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let headers = answer.headers().clone();
        assert_eq!(headers["x-request-id"], "of-the-test");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        assert!(headers.contains_key(header::CONTENT_SECURITY_POLICY));
        let page = answer.text().await.unwrap();
        assert!(page.contains("The request failed"), "{page}");
    }
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_session_makes_no_keys() {
    let site = Site::open().await;
    let acme = site.tenant_with_app("Acme", APP).await;
    let secret = site.secret(KeyOwner::Operator, ScopeSet::all()).await;
    let session = site.session(&secret).await;
    assert_eq!(site.look("/console", &session).await.0, StatusCode::OK);
    let token = session.split_once('=').unwrap().1;
    for path in [format!("/v1/tenants/{acme}/keys"), "/v1/keys".to_owned()] {
        let request = site
            .http
            .post(format!("{}{path}", site.gateway.base_url()))
            .bearer_auth(token)
            .json(&serde_json::json!({"name": "k", "scopes": ["messages:send"]}));
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    // An access token is not valid as a session either.
    let issued = site
        .gateway
        .tenancy()
        .issue_token(None, &ClientSecret::new(secret), None)
        .await
        .unwrap();
    let cookie = format!("wxgate_console={}", issued.access_token.expose());
    assert_eq!(
        site.look("/console", &cookie).await.0,
        StatusCode::SEE_OTHER
    );
    site.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_that_read_get_in_and_only_from_these_pages() {
    let site = Site::open().await;
    let acme = site.tenant_with_app("Acme", APP).await;
    let sends: ScopeSet = [Scope::MessagesSend].into_iter().collect();
    let sender = site.secret(KeyOwner::Tenant(acme), sends).await;
    let reads: ScopeSet = [Scope::AppsRead, Scope::MessagesSend].into_iter().collect();
    let reader = site.secret(KeyOwner::Tenant(acme), reads).await;
    for wrong in ["", "wxg_x", &sender] {
        assert_eq!(
            site.sign_in(wrong).await.status(),
            StatusCode::UNAUTHORIZED,
            "{wrong:?}"
        );
    }
    for origin in [None, Some("null"), Some("https://elsewhere.example")] {
        let mut request = site
            .http
            .post(format!("{}/console/sign-in", site.gateway.base_url()))
            .form(&[("client_secret", &reader)]);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        assert_eq!(
            request.send().await.unwrap().status(),
            StatusCode::FORBIDDEN,
            "{origin:?}"
        );
    }

    let session = site.session(&reader).await;
    let (_, page) = site.look(&format!("/console/apps/{APP}"), &session).await;
    assert!(page.contains("may not read messages"), "{page}");
    let token = session.split_once('=').unwrap().1;
    let send = site
        .http
        .post(format!(
            "{}/v1/apps/{APP}/messages",
            site.gateway.base_url()
        ))
        .bearer_auth(token)
        .json(&serde_json::json!({}));
    assert_eq!(
        send.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );

    for cookie in ["", "wxgate_console=", "wxgate_console=x.y.z"] {
        assert_eq!(
            site.look("/console", cookie).await.0,
            StatusCode::SEE_OTHER,
            "{cookie:?}"
        );
    }
    site.gateway.stop().await;
}
