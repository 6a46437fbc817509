//! The three calls that send a message to a user.

use std::sync::Arc;
use std::time::Duration;

use super::call::{Acted, CallReply, ParsedCall};
use crate::account::{AppSettings, GrantRule};
use crate::app::SimulatedApp;
use crate::endpoint::CallEndpoint;
use crate::journal::Sent;
use crate::message::{Data, SimulatedMessage, Slot};
use crate::push::PushEvent;
use crate::refusal::Refusal;
use crate::template::ListedTemplate;
use crate::values;
use crate::world::World;

/// Sends a message of an account, after all checks that do not concern the message.
pub(super) fn act(
    world: &World,
    call: &ParsedCall<'_>,
    app: &Arc<SimulatedApp>,
    message: &SimulatedMessage<'_>,
    delay: Duration,
) -> Acted {
    let settings = app.settings();
    let templates = match call.endpoint {
        CallEndpoint::WxopenSend => &settings.wxopen_templates,
        _ => &settings.templates,
    };
    let template = match addressed(app, &settings, templates, message) {
        Ok(template) => template,
        Err(refusal) => return Err(refusal).into(),
    };
    let desk = SendContext {
        world,
        call,
        app,
        settings: &settings,
        message,
    };
    match call.endpoint {
        CallEndpoint::WxopenSend => desk.form_id_message().into(),
        CallEndpoint::TemplateSend => desk.official_message(template).into(),
        _ => match app.occupy(&message.touser, delay) {
            Ok(busy) => Acted {
                reply: desk.subscribe_message(template),
                busy,
            },
            Err(refusal) => Err(refusal).into(),
        },
    }
}

/// Fails if the user (40003) or the template (40037) does not exist. An account without templates accepts every
/// template id.
fn addressed<'a>(
    app: &SimulatedApp,
    settings: &AppSettings,
    templates: &'a [ListedTemplate],
    message: &SimulatedMessage<'_>,
) -> Result<Option<&'a ListedTemplate>, Refusal> {
    app.knows(&message.touser, settings.users)?;
    let unknown = || Refusal::known(40037);
    if message.template_id.is_empty() {
        return Err(unknown());
    }
    if templates.is_empty() {
        return Ok(None);
    }
    let found = templates
        .iter()
        .find(|template| template.pri_tmpl_id == *message.template_id);
    found.map(Some).ok_or_else(unknown)
}

/// The data of one send.
struct SendContext<'a> {
    world: &'a World,
    call: &'a ParsedCall<'a>,
    app: &'a Arc<SimulatedApp>,
    settings: &'a AppSettings,
    message: &'a SimulatedMessage<'a>,
}

impl SendContext<'_> {
    /// Checks that a grant is left (43101), then checks the values (47003), and only then uses up the grant: a message
    /// refused for the values costs no grant.
    fn subscribe_message(&self, template: Option<&ListedTemplate>) -> CallReply {
        let (openid, template_id) = (&*self.message.touser, &*self.message.template_id);
        let counted = self.settings.grants == GrantRule::Counted;
        if counted && self.app.grants.left(openid, template_id) == 0 {
            return Err(Refusal::known(43101));
        }
        check_all(&self.message.data, template)?;
        if counted {
            let long_term = template.is_some_and(ListedTemplate::is_long_term);
            self.app.grants.spend(openid, template_id, long_term)?;
        }
        let msgid = self.accept();
        Ok(format!(
            "{{\"errcode\":0,\"errmsg\":\"ok\",\"msgid\":{msgid}}}"
        ))
    }

    /// Checks the form id only: WeChat never checked values or keys of these messages.
    fn form_id_message(&self) -> CallReply {
        let policy = self.settings.form_ids;
        self.app.form_ids.spend(
            &self.message.form_id,
            &self.message.touser,
            self.call.now,
            policy,
        )?;
        self.accept();
        let template_id = serde_json::Value::from(&*self.message.template_id);
        Ok(format!(
            "{{\"errcode\":0,\"errmsg\":\"ok\",\"template_id\":{template_id}}}"
        ))
    }

    /// Checks the values that are present; keys may be missing. The same client id within ten minutes sends nothing
    /// more.
    fn official_message(&self, template: Option<&ListedTemplate>) -> CallReply {
        match &self.message.data {
            Data::Keys(keys) => keys
                .iter()
                .filter(|(_, slot)| *slot != Slot::Value("".into()))
                .try_for_each(|(key, slot)| check_one(key, slot, template))?,
            Data::Missing | Data::NotAnObject => return Err(invalid("data")),
        }
        let (openid, client_id) = (&*self.message.touser, &*self.message.client_msg_id);
        let msgid = self
            .app
            .once(openid, client_id, self.call.now, || self.accept());
        Ok(format!(
            "{{\"errcode\":0,\"errmsg\":\"ok\",\"msgid\":{msgid}}}"
        ))
    }

    /// Records the message as sent, and queues the receipt if the account wants receipts.
    fn accept(&self) -> u64 {
        let msgid = self.world.mint.msgid();
        let message = self.message;
        let marker = message.marker(self.settings.marker_key.as_deref());
        self.app.journal.record(&message.touser, marker, || Sent {
            path: self.call.endpoint.name().to_owned(),
            touser: message.touser.to_string(),
            template_id: message.template_id.to_string(),
            msgid,
            form_id: given(&message.form_id),
            client_msg_id: given(&message.client_msg_id),
            marker: marker.map(str::to_owned),
            body: self
                .world
                .options
                .journal_bodies
                .then(|| String::from_utf8_lossy(self.call.body).into_owned()),
            at: self.call.now,
        });
        if self
            .settings
            .push
            .as_ref()
            .is_some_and(|push| push.receipts)
        {
            self.tell(msgid);
        }
        msgid
    }

    /// Queues the receipt of a delivered message. WeChat never sent receipts for form-id messages.
    fn tell(&self, msgid: u64) {
        let (openid, template_id) = (&*self.message.touser, &*self.message.template_id);
        let event = match self.call.endpoint {
            CallEndpoint::WxopenSend => return,
            CallEndpoint::TemplateSend => PushEvent::JobFinished {
                openid: openid.to_owned(),
                msgid,
                status: "success".to_owned(),
            },
            _ => PushEvent::delivered(openid, template_id, msgid),
        };
        self.world.push(self.app, event);
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Checks the data of a subscribe message: all keys of the template are present, and every value fits the key.
fn check_all(data: &Data<'_>, template: Option<&ListedTemplate>) -> Result<(), Refusal> {
    let Data::Keys(keys) = data else {
        return Err(invalid("data"));
    };
    let Some(template) = template else {
        return keys
            .iter()
            .try_for_each(|(key, slot)| check_one(key, slot, None));
    };
    for wanted in template.keys() {
        let Some((_, slot)) = keys.iter().find(|(key, _)| **key == *wanted) else {
            return Err(Refusal::worded(
                47003,
                format!("argument invalid! data.{wanted}.value"),
            ));
        };
        check_one(wanted, slot, Some(template))?;
    }
    Ok(())
}

fn check_one(key: &str, slot: &Slot<'_>, template: Option<&ListedTemplate>) -> Result<(), Refusal> {
    match slot {
        Slot::Wrong => Err(invalid(&format!("data.{key}.value"))),
        // WeChat's own spelling.
        Slot::Value(value) if value.is_empty() => Err(Refusal::worded(
            47003,
            format!("argument invalid! data.{key}.value is emtpy"),
        )),
        Slot::Value(value) => {
            let listed = template
                .and_then(|template| template.values_of(key))
                .is_none_or(|values| values.iter().any(|listed| *listed == **value));
            if listed && values::fits(key, value) {
                Ok(())
            } else {
                Err(invalid(&format!("data.{key}.value")))
            }
        }
    }
}

fn invalid(place: &str) -> Refusal {
    Refusal::worded(47003, format!("argument invalid! {place} invalid"))
}
