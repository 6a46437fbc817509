//! The OpenAPI document. Every answer that a test gets is compared with the document.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::Value;

/// The answers of one operation.
struct Operation {
    method: String,
    path: String,
    /// The codes of the problems, by status; an empty set: the answer is not a problem.
    answers: BTreeMap<u16, BTreeSet<String>>,
}

static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let document = serde_json::to_value(api::openapi()).expect("JSON");
    let items = document["paths"].as_object().expect("paths").iter();
    let operations = items.flat_map(|(path, item)| {
        let methods = item.as_object().expect("operations").iter();
        methods.map(|(method, operation)| Operation {
            method: method.to_uppercase(),
            path: path.clone(),
            answers: answers(&document, operation),
        })
    });
    operations.collect()
});

fn answers(document: &Value, operation: &Value) -> BTreeMap<u16, BTreeSet<String>> {
    let responses = operation["responses"].as_object().expect("responses");
    let answers = responses.iter().map(|(status, response)| {
        let place = response["$ref"].as_str().map(|place| &place[1..]);
        let response = place.map_or(response, |place| document.pointer(place).expect(place));
        let problems = &response["content"]["application/problem+json"]["examples"];
        let codes = problems.as_object().into_iter().flat_map(|all| all.keys());
        (status.parse().expect("a status"), codes.cloned().collect())
    });
    answers.collect()
}

impl Operation {
    /// The number of literal segments of the operation's path, if the operation matches the request. A parameter
    /// matches one segment; the `{path}` of the pass-through matches the rest of the path.
    fn fits(&self, method: &str, path: &str) -> Option<usize> {
        let method = if method == "HEAD" { "GET" } else { method };
        if self.method != method {
            return None;
        }
        let mut asked = path.split('/');
        let mut own = 0;
        for segment in self.path.split('/') {
            let given = asked.next()?;
            if segment == "{path}" {
                return Some(own);
            }
            if segment == given {
                own += 1;
            } else if !segment.starts_with('{') {
                return None;
            }
        }
        asked.next().is_none().then_some(own)
    }
}

/// Fails where the document lacks this answer for the requested operation: generated clients would lack the answer too.
pub(super) fn check(method: &str, path: &str, status: u16, code: Option<&str>) {
    let fitting = OPERATIONS
        .iter()
        .filter_map(|one| Some((one.fits(method, path)?, one)));
    let Some((_, operation)) = fitting.max_by_key(|(own, _)| *own) else {
        return;
    };
    let Operation { path, answers, .. } = operation;
    let codes = answers.get(&status);
    let codes = codes.unwrap_or_else(|| {
        panic!("{method} {path} has no {status} {code:?} in the OpenAPI document")
    });
    assert!(
        codes.is_empty() || code.is_some_and(|code| codes.contains(code)),
        "{method} {path} has no {code:?} among the {status} of the OpenAPI document: {codes:?}"
    );
}

/// Answers that an operation documents pass, and so do answers on paths without an operation; other answers fail.
#[test]
fn what_is_not_documented_is_found() {
    check("HEAD", "/v1/apps/wx1/quota", 200, None);
    check("GET", "/v1/nothing", 404, Some("not_found"));
    check("POST", "/cgi-bin/message/custom/send", 200, None);
    for (method, path, status, code) in [
        ("GET", "/v1/apps/wx1/quota", 409, "conflict"),
        ("GET", "/v1/apps", 429, "quota_exhausted"),
        ("POST", "/v1/apps/wx1/messages", 503, "wechat_unavailable"),
        ("POST", "/cgi-bin/message/custom/send", 404, "not_found"),
    ] {
        let checked = std::panic::catch_unwind(|| check(method, path, status, Some(code)));
        assert!(checked.is_err(), "{method} {path} {status} {code}");
    }
}
