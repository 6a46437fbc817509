//! Links from an answer to the operations that use the answer. Tools that explore the API follow links, and readers see
//! what an id is for.

use utoipa::openapi::{
    OpenApi, RefOr,
    link::LinkBuilder,
    path::{Operation, ParameterIn, PathItem},
};

/// The answers that name a resource, the parameters that hold its ids, and the operations that take these parameters.
const WAYS: &[Way] = &[
    Way {
        from: &["register_app"],
        parameters: &[("appid", "appid")],
        to: &[
            "get_app",
            "update_app",
            "remove_app",
            "verify_app",
            "set_app_secret",
            "get_app_quota",
            "get_token_state",
            "refresh_token",
            "hand_out_token",
            "send_message",
            "send_batch",
            "list_messages",
        ],
    },
    Way {
        from: &["send_message"],
        parameters: &[("id", "id")],
        to: &["get_message", "cancel_message", "retry_message"],
    },
    Way {
        from: &["cancel_message"],
        parameters: &[("id", "id")],
        to: &["retry_message"],
    },
    Way {
        from: &["create_webhook"],
        parameters: &[("webhook_id", "id")],
        to: &[
            "get_webhook",
            "update_webhook",
            "remove_webhook",
            "rotate_webhook_secret",
            "test_webhook",
            "list_webhook_deliveries",
            "redeliver_webhook_events",
        ],
    },
    Way {
        from: &["test_webhook"],
        parameters: &[("webhook_id", "webhook_id"), ("event_id", "event_id")],
        to: &["redeliver_webhook_event"],
    },
    Way {
        from: &["create_key"],
        parameters: &[("key_id", "client_id")],
        to: &["revoke_key"],
    },
    Way {
        from: &["create_tenant"],
        parameters: &[("tenant_id", "id")],
        to: &[
            "get_tenant",
            "update_tenant",
            "create_tenant_key",
            "list_tenant_keys",
        ],
    },
    Way {
        from: &["create_tenant_key"],
        parameters: &[("tenant_id", "tenant_id"), ("key_id", "client_id")],
        to: &["revoke_tenant_key"],
    },
];

struct Way {
    from: &'static [&'static str],
    /// Each parameter, with the field of the answer that has the parameter's value.
    parameters: &'static [(&'static str, &'static str)],
    to: &'static [&'static str],
}

/// Adds the links of each answer: to the operations on the resource, and to the next page.
pub(super) fn describe(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let id = operation.operation_id.clone().unwrap_or_default();
            for way in WAYS.iter().filter(|way| way.from.contains(&id.as_str())) {
                for to in way.to {
                    let values = way.parameters.iter().map(|&(parameter, field)| {
                        (parameter.to_owned(), format!("$response.body#/{field}"))
                    });
                    add(operation, to, to, &values.collect::<Vec<_>>());
                }
            }
            if let Some(values) = next_page(operation) {
                add(operation, "next_page", &id, &values);
            }
        }
    }
}

/// The operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// The parameters that lead from one page of a list to the next; `None` if the operation is no list.
fn next_page(operation: &Operation) -> Option<Vec<(String, String)>> {
    let parameters = operation.parameters.iter().flatten();
    let parameters = parameters.filter_map(|one| match one {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    if !parameters.clone().any(|one| one.name == "cursor") {
        return None;
    }
    let values = parameters.filter_map(|one| {
        let value = match one.parameter_in {
            ParameterIn::Path => format!("$request.path.{}", one.name),
            _ if one.name == "cursor" => "$response.body#/next_cursor".to_owned(),
            _ => return None,
        };
        Some((one.name.clone(), value))
    });
    Some(values.collect())
}

fn add(operation: &mut Operation, name: &str, to: &str, values: &[(String, String)]) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else {
            continue;
        };
        if !status.starts_with('2') || response.content.is_empty() {
            continue;
        }
        let link = LinkBuilder::new().operation_id(to);
        let link = values.iter().fold(link, |link, (name, value)| {
            link.parameter(name, value.as_str())
        });
        response.links.insert(name.to_owned(), link.build().into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// Every operation's id with the names of its parameters.
    fn known(document: &Value) -> BTreeMap<String, Vec<String>> {
        let items = document["paths"].as_object().unwrap().values();
        let operations = items.flat_map(|item| item.as_object().unwrap().values());
        let named = operations.map(|operation| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let names = parameters.map(|one| one["name"].as_str().unwrap().to_owned());
            let id = operation["operationId"].as_str().unwrap().to_owned();
            (id, names.collect())
        });
        named.collect()
    }

    #[test]
    fn links_lead_to_operations_and_parameters_that_exist() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let known = known(&document);
        for way in WAYS {
            for id in way.from.iter().chain(way.to) {
                assert!(known.contains_key(*id), "there is no operation {id}");
            }
            for id in way.to {
                for (parameter, _) in way.parameters {
                    let parameters = &known[*id];
                    assert!(
                        parameters.iter().any(|name| name == parameter),
                        "{id} has no {parameter}: {parameters:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_list_leads_to_its_next_page() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        let links = |path: &str| {
            document
                .pointer(&format!("/paths/{path}/get/responses/200/links/next_page"))
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(links("~1v1~1apps")["operationId"], "list_apps");
        let messages = links("~1v1~1apps~1{appid}~1messages");
        assert_eq!(messages["parameters"]["appid"], "$request.path.appid");
        assert_eq!(
            messages["parameters"]["cursor"],
            "$response.body#/next_cursor"
        );
    }
}
