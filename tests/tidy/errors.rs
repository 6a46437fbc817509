//! `docs/ERRORS.md` agrees with the code in every problem, failure, pause and WeChat code.

use std::{collections::BTreeMap, fmt::Write as _};

use domain::verdict::{BlockReason, FailureCode};
use wechat::codes;

use crate::workspace::root;

const HEAD: &str = "# Errors

Every way in which the gateway says no, and every error code of WeChat with what the gateway does on it. This page is
made from the code: `cargo test -p wxgate-tests --test tidy` writes `target/ERRORS.md` and compares.

## Problems

Refusals of the API are `application/problem+json` (RFC 9457). Match on `code`; `detail` says what to do next, `errors`
names fields, `wechat` has WeChat's own words. Every 429 and 503 has `Retry-After`. Three codes have a second status: `conflict` is
412 where `If-Match` names a state that is no more, `invalid_request` is 405 where the method does not work,
and `wechat_rejected` is 422 where WeChat refuses what the owner of the app gave or can repair (AppSecret, IP list, account), 502 else. `bad_signature` is met at
`/callbacks/{appid}` alone, by whoever does not prove to be WeChat: an app that is not here, a wrong signature, a time too
far off and a body that does not decrypt all look the same, and the gateway's log says which it was. Callers of `/v1` never see it.

| status | code | title | such as |
| --- | --- | --- | --- |
";

const FAILURES: &str = "
## Failures of messages

`failure.code` of a message that did not arrive, and what its `failure.detail` begins with.

| code | means |
| --- | --- |
";

const PAUSES: &str = "
## Pauses of apps

`pause.reason` of an app that cannot send until somebody repairs it. Its messages wait, within their ttl, and go on as soon
as `POST /v1/apps/{appid}/verify` or `PUT /v1/apps/{appid}/secret` succeeds. Four more need no repair, the gateway tries
again by itself: `quota_exhausted` (until 00:00 Asia/Shanghai), `throttled` (until the next minute begins),
`token_fetches_spent` (WeChat grants no more token fetches today or in this minute) and `no_token` (WeChat's token endpoint fails).

| reason | means |
| --- | --- |
";

const CODES: &str = "
## WeChat's codes

The same code means different things at different endpoints. A code that is not here refuses a send (`refused`).

| errcode | at | means | the gateway |
| --- | --- | --- | --- |
";

#[test]
fn the_page_of_errors_is_what_the_code_says() {
    let page = page();
    let path = root().join("docs/ERRORS.md");
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if there != page {
        let new = root().join("target/ERRORS.md");
        std::fs::create_dir_all(root().join("target")).unwrap();
        std::fs::write(&new, page).unwrap();
        panic!(
            "docs/ERRORS.md is not what the code says: `cp target/ERRORS.md docs/ERRORS.md` if the code is right"
        );
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for ((status, code), (title, detail)) in problems() {
        let _ = writeln!(page, "| {status} | `{code}` | {title} | {detail} |");
    }
    page.push_str(FAILURES);
    for code in FailureCode::ALL {
        let _ = writeln!(page, "| `{}` | {} |", code.as_str(), code.advice());
    }
    page.push_str(PAUSES);
    for reason in BlockReason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.as_str(), reason.advice());
    }
    page.push_str(CODES);
    for row in codes::table() {
        let endpoints: Vec<&str> = row
            .endpoints
            .iter()
            .map(|endpoint| endpoint.as_str())
            .collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            row.code,
            endpoints.join(", "),
            row.meaning,
            row.action
        );
    }
    page
}

/// The problems in the OpenAPI document: status and code → title and an example's detail.
fn problems() -> BTreeMap<(u64, String), (String, String)> {
    let document = serde_json::to_value(api::openapi()).unwrap();
    let responses = document["components"]["responses"].as_object().unwrap();
    let examples = responses.values().flat_map(|response| {
        response["content"]["application/problem+json"]["examples"]
            .as_object()
            .unwrap()
            .values()
    });
    examples
        .map(|example| {
            let problem = &example["value"];
            let text = |member: &str| problem[member].as_str().unwrap().to_owned();
            (
                (problem["status"].as_u64().unwrap(), text("code")),
                (text("title"), text("detail")),
            )
        })
        .collect()
}
