//! Batches: many messages in one request, each with a result of its own.

use chrono::{DateTime, Utc};
use delivery::{BatchItem, BatchResult};
use domain::{
    message::{Request, Unfit},
    template::Catalog,
    violation::Violation,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    items::{ErrorSpace, Items, words},
    message_request,
    message_schema::AnyMessage,
    messages::Message,
};
use crate::{
    problem::{Problem, ProblemBody},
    refusals::submit_refusal,
};

/// An item as read: a requested message, or the errors in its form.
type Asked = Result<Request, Vec<Violation>>;

/// Messages to send. The gateway checks each message by itself: an error in one does not affect the others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// 1 to 1000 messages.
    #[schema(value_type = Vec<AnyMessage>, min_items = 1, max_items = 1000)]
    messages: Items,
}

impl BatchRequest {
    /// The requested messages, item by item. Fails if the list is empty or too long.
    pub(crate) fn requests(self) -> Result<Vec<Asked>, Problem> {
        let messages = self.messages.each("messages")?;
        Ok(messages
            .iter()
            .map(|item| message_request::item(item))
            .collect())
    }
}

/// The items at `now`, checked against the known templates.
pub(crate) fn items(requests: Vec<Asked>, catalog: &Catalog, now: DateTime<Utc>) -> Vec<BatchItem> {
    let mut room = ErrorSpace::default();
    let item = |asked: Asked| {
        let request = match asked {
            Ok(request) => request,
            Err(errors) => return BatchItem::Unfit(room.words(errors)),
        };
        let template = catalog.look_up(request.channel, &request.template_id);
        match request.check_against(now, template, catalog.value_rules()) {
            Ok(draft) => BatchItem::Draft(Box::new(draft)),
            Err(Unfit {
                violations,
                otherwise: Some(draft),
            }) => BatchItem::Misfit(draft, room.words(violations)),
            Err(unfit) => BatchItem::Unfit(room.words(unfit.violations)),
        }
    };
    requests.into_iter().map(item).collect()
}

/// The results of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    /// One result for each message, in the order of the request.
    data: Vec<ItemResult>,
}

/// The result for one message of a batch: `message` or `error`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemResult {
    /// 202: the message was accepted and will be sent. 200: the message was a dry run. Otherwise the status of `error`.
    #[schema(example = 202)]
    status: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    /// Why the message was refused. The pointers count from the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemBody>)]
    error: Option<Value>,
}

impl BatchAnswer {
    /// The answer at `now`.
    ///
    /// `warnings` are the warnings of each item, in order.
    pub(crate) fn of(
        results: Vec<BatchResult>,
        warnings: Vec<Vec<String>>,
        catalog: &Catalog,
        now: DateTime<Utc>,
    ) -> Self {
        let result = |(result, mut warnings): (_, Vec<String>)| match result {
            BatchResult::Accepted(message) => {
                ItemResult::taken(202, Message::with_warnings(*message, warnings))
            }
            BatchResult::Checked(message) => {
                let template = catalog.look_up(message.content.channel(), &message.template_id);
                warnings.extend(template.warnings());
                ItemResult::taken(200, Message::dry(*message, warnings))
            }
            BatchResult::Refused(error) => ItemResult::refused(&words(&submit_refusal(error, now))),
            BatchResult::Unfit(words) => ItemResult::refused(&words),
        };
        Self {
            data: results.into_iter().zip(warnings).map(result).collect(),
        }
    }
}

impl ItemResult {
    fn taken(status: u64, message: Message) -> Self {
        Self {
            status,
            message: Some(message),
            error: None,
        }
    }

    fn refused(words: &str) -> Self {
        let error: Value = serde_json::from_str(words).unwrap_or_default();
        Self {
            status: error["status"].as_u64().unwrap_or_default(),
            message: None,
            error: Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::extract::parse_part;

    fn items(messages: &Value) -> Result<Vec<BatchItem>, Problem> {
        let request: BatchRequest = parse_part(&json!({ "messages": messages }))?;
        let (nothing, now) = (Catalog::default(), DateTime::UNIX_EPOCH);
        Ok(super::items(request.requests()?, &nothing, now))
    }

    #[test]
    fn a_batch_has_1_to_1000_messages() {
        let fine = json!({"touser": "o", "template_id": "t", "data": {"thing1": {"value": "x"}}});
        for (count, taken) in [(0, false), (1, true), (1000, true), (1001, false)] {
            let batch = items(&Value::Array(vec![fine.clone(); count]));
            assert_eq!(batch.is_ok(), taken, "{count}");
        }
        assert!(items(&json!("no list")).is_err());
    }

    #[test]
    fn what_is_wrong_with_an_item_is_told_from_the_item() {
        let wrong = json!([
            "no object",
            {"touser": "o", "template_id": "t", "data": {"thing1": {"value": "x"}}, "extra": 1},
            {"touser": "o", "template_id": "t"},
        ]);
        let told = items(&wrong).unwrap().into_iter().map(|item| match item {
            BatchItem::Unfit(words) => {
                let error = ItemResult::refused(&words).error.unwrap();
                error["errors"][0]["pointer"].as_str().unwrap().to_owned()
            }
            BatchItem::Draft(_) | BatchItem::Misfit(..) => "fine".to_owned(),
        });
        assert_eq!(told.collect::<Vec<_>>(), ["", "/extra", "/data"]);
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let twice = br#"{"messages": [{"touser": "a", "touser": "b", "template_id": "t", "data": {"thing1": {"value": "x"}}}]}"#;
        let request: BatchRequest = crate::extract::parse(twice).unwrap();
        let errors = request.requests().unwrap().remove(0).unwrap_err();
        assert_eq!(errors[0].pointer, "/touser", "{errors:?}");
    }
}
