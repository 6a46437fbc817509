//! `docs/ERRORS.md` agrees with the code in every problem, failure, pause and WeChat code.

use std::{collections::BTreeMap, fmt::Write as _};

use domain::verdict::{BlockReason, FailureCode};
use wechat::codes;

use crate::workspace::root;

const HEAD: &str = "# Errors

This page lists every error of the gateway, and every error code of WeChat with the gateway's reaction. The page is generated from the
code: `cargo test -p wxgate-tests --test tidy` writes `target/ERRORS.md` and compares the two.

## API problems

Error answers of the API are `application/problem+json` (RFC 9457). Match on `code`. `detail` says what to do next, `errors` names the
fields that are wrong, and `wechat` contains WeChat's own text. Every 429 and 503 has `Retry-After`. Three codes have a second status:
`conflict` is 412 when `If-Match` names an old state, `invalid_request` is 405 when the path does not support the method, and
`wechat_rejected` is 422 when the owner of the app can repair the cause (AppSecret, IP list, account), otherwise 502. Only
`/callbacks/{appid}` answers `bad_signature`, to every request that does not prove that WeChat sent it: the answer is the same for an
unknown app, a wrong signature, a wrong time and a body that cannot be decrypted. The gateway's log names the cause.

| status | code | title | example |
| --- | --- | --- | --- |
";

const FAILURES: &str = "
## Failures of messages

`failure.code` of a message that was not delivered, and the beginning of `failure.detail`.

| code | meaning |
| --- | --- |
";

const PAUSES: &str = "
## Pauses of apps

`pause.reason` of an app that cannot send until the cause is repaired. The messages of the app wait within their ttl, and continue when
`POST /v1/apps/{appid}/verify` or `PUT /v1/apps/{appid}/secret` succeeds. Four more reasons need no repair, because the gateway tries
again: `quota_exhausted` (until 00:00 Asia/Shanghai), `throttled` (until the next minute begins), `token_fetches_spent` (WeChat allows no
more token fetches in this day or minute) and `no_token` (WeChat's token endpoint fails).

| reason | meaning |
| --- | --- |
";

const CODES: &str = "
## WeChat's error codes

The same code can have another meaning at another endpoint. An unlisted code fails a message with `refused`.

| errcode | endpoint | meaning | reaction of the gateway |
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
