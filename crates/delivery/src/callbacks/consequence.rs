//! What an event means for the gateway.

use chrono::DateTime;
use domain::{
    app::AppId, grant::LedgerEntry, id::TenantId, message::Channel, verdict::FailureCode,
};
use sha2::{Digest, Sha256};
use store::{CallbackEvent, EventKey, LedgerChange, MatchFields, NewReceipt};
use wechat::callback::{Choice, EventKind, Receipt, TemplateChoice, WechatEvent};

/// What an event means for the gateway. The batch writer of callbacks carries the consequence out before WeChat is
/// answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// These messages were delivered, or were not.
    Receipts(Vec<NewReceipt>),
    /// A user gave or withdrew permission for messages. Entered into the ledger once for each digest.
    Subscriptions(CallbackEvent),
    /// No known meaning.
    Nothing,
}

impl Consequence {
    /// How many rows the consequence reads or writes, at least 1.
    pub(super) fn weight(&self) -> usize {
        let rows = match self {
            Self::Receipts(receipts) => receipts.len(),
            Self::Subscriptions(news) => news.entries.len(),
            Self::Nothing => 0,
        };
        rows.max(1)
    }

    /// The meaning of `event` for the tenant's app that received the event.
    pub fn of(tenant: TenantId, appid: &AppId, event: &WechatEvent) -> Self {
        match &event.kind {
            EventKind::Sent(receipts) => {
                new_receipts(tenant, appid, event, Channel::Subscribe, receipts)
            }
            EventKind::JobFinished(receipts) => {
                new_receipts(tenant, appid, event, Channel::Official, receipts)
            }
            EventKind::Popup(choices) | EventKind::Change(choices) => {
                Self::Subscriptions(CallbackEvent {
                    tenant,
                    event: EventKey {
                        appid: appid.clone(),
                        digest: digest(tenant, event, choices),
                    },
                    entries: entries(appid, event, choices),
                })
            }
            EventKind::Unknown { .. } | EventKind::Unreadable { .. } => Self::Nothing,
        }
    }
}

/// The entries for the ledger: each acceptance in a popup, each withdrawal in the settings. A declined popup accepts
/// nothing more and withdraws nothing.
fn entries(appid: &AppId, event: &WechatEvent, choices: &[TemplateChoice]) -> Vec<LedgerChange> {
    let at = DateTime::from_timestamp(event.created_at, 0).unwrap_or_default();
    let entry = |choice: &Choice| match (&event.kind, choice) {
        (EventKind::Popup(_), Choice::Accept) => Some(LedgerEntry::Accepted { at }),
        (EventKind::Change(_), Choice::Reject) => Some(LedgerEntry::Revoked { at }),
        _ => None,
    };
    let entries = choices.iter().filter_map(|chosen| {
        Some(LedgerChange {
            appid: appid.clone(),
            openid: event.openid.clone(),
            template_id: chosen.template_id.clone(),
            entry: entry(&chosen.choice)?,
        })
    });
    entries.collect()
}

fn new_receipts(
    tenant: TenantId,
    appid: &AppId,
    event: &WechatEvent,
    channel: Channel,
    receipts: &[Receipt],
) -> Consequence {
    // Events about some messages of official accounts have 0 instead of the message's id.
    let named = receipts.iter().filter(|receipt| receipt.msgid != 0);
    Consequence::Receipts(
        named
            .map(|receipt| new_receipt(tenant, appid, event, channel, receipt))
            .collect(),
    )
}

fn new_receipt(
    tenant: TenantId,
    appid: &AppId,
    event: &WechatEvent,
    channel: Channel,
    receipt: &Receipt,
) -> NewReceipt {
    let failure_detail = receipt.words.as_ref().map(|words| {
        format!(
            "{}: WeChat's event said `{words}`",
            FailureCode::Undelivered.advice()
        )
    });
    NewReceipt {
        tenant,
        appid: appid.clone(),
        touser: event.openid.clone(),
        msgid: receipt.msgid,
        delivered: receipt.delivered,
        failure_detail,
        circumstances: DateTime::from_timestamp(event.created_at, 0).map(|happened_at| {
            MatchFields {
                channel,
                template_id: receipt.template_id.clone(),
                happened_at,
            }
        }),
    }
}

/// Covers the tenant, the user, the time and the content: the same for every repeat, under every signature.
fn digest(tenant: TenantId, event: &WechatEvent, choices: &[TemplateChoice]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(tenant.uuid());
    let mut part = |text: &str| {
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    };
    part(event.kind.as_str());
    part(&event.openid);
    part(&event.created_at.to_string());
    for TemplateChoice {
        template_id,
        choice,
    } in choices
    {
        part(template_id);
        part(match choice {
            Choice::Accept => "accept",
            Choice::Reject => "reject",
            Choice::Other(word) => word,
        });
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appid() -> AppId {
        AppId::parse("wx0a1b2c3d4e5f6789").unwrap()
    }

    fn tenant(number: u16) -> TenantId {
        domain::id::new(DateTime::UNIX_EPOCH, number, 1)
    }

    fn event(kind: EventKind) -> WechatEvent {
        WechatEvent {
            openid: "o1".into(),
            created_at: 1_726_569_012,
            kind,
        }
    }

    fn chose(template_id: &str, choice: Choice) -> TemplateChoice {
        TemplateChoice {
            template_id: template_id.to_owned(),
            choice,
        }
    }

    fn receipt(msgid: u64, words: Option<&str>) -> Receipt {
        Receipt {
            msgid,
            template_id: None,
            delivered: words.is_none(),
            words: words.map(str::to_owned),
        }
    }

    #[test]
    fn receipts_say_what_wechat_said_and_one_without_an_id_is_nobodys() {
        let receipts = vec![
            receipt(7, None),
            receipt(0, None),
            receipt(8, Some("failed:user block")),
        ];
        let Consequence::Receipts(receipts) = Consequence::of(
            tenant(1),
            &appid(),
            &event(EventKind::JobFinished(receipts)),
        ) else {
            panic!("receipts")
        };
        let of = |receipt: &NewReceipt| (receipt.msgid, receipt.delivered);
        assert_eq!(
            receipts.iter().map(of).collect::<Vec<_>>(),
            [(7, true), (8, false)]
        );
        let detail = receipts[1].failure_detail.as_deref().unwrap();
        assert!(detail.ends_with("`failed:user block`"), "{detail}");
        assert!(detail.starts_with(FailureCode::Undelivered.advice()));
    }

    #[test]
    fn a_digest_tells_events_apart_and_knows_a_repeat() {
        let digest = |event: &WechatEvent| match Consequence::of(tenant(1), &appid(), event) {
            Consequence::Subscriptions(news) => news.event.digest,
            other => panic!("{other:?}"),
        };
        let one = event(EventKind::Popup(vec![chose("t1", Choice::Accept)]));
        assert_eq!(digest(&one), digest(&one.clone()));
        let later = WechatEvent {
            created_at: one.created_at + 1,
            ..one.clone()
        };
        let others = WechatEvent {
            openid: "o2".into(),
            ..one.clone()
        };
        let change = event(EventKind::Change(vec![chose("t1", Choice::Accept)]));
        let rejected = event(EventKind::Popup(vec![chose("t1", Choice::Reject)]));
        let template = event(EventKind::Popup(vec![chose("t2", Choice::Accept)]));
        let both = event(EventKind::Popup(vec![
            chose("t1", Choice::Accept),
            chose("t2", Choice::Accept),
        ]));
        let Consequence::Subscriptions(other_owner) = Consequence::of(tenant(2), &appid(), &one)
        else {
            panic!("news")
        };
        assert_ne!(other_owner.event.digest, digest(&one), "of another owner");
        let all = [one, later, others, change, rejected, template, both];
        let digests: std::collections::HashSet<_> = all.iter().map(digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn popups_give_and_settings_take() {
        let entered = |kind: EventKind| match Consequence::of(tenant(1), &appid(), &event(kind)) {
            Consequence::Subscriptions(news) => news.entries,
            other => panic!("{other:?}"),
        };
        let choices = vec![
            chose("t1", Choice::Accept),
            chose("t2", Choice::Reject),
            chose("t3", Choice::Other("ban".into())),
        ];
        let at = DateTime::from_timestamp(1_726_569_012, 0).unwrap();
        let given = entered(EventKind::Popup(choices.clone()));
        let of = |news: &LedgerChange| (news.template_id.clone(), news.entry);
        let accepted = LedgerEntry::Accepted { at };
        assert_eq!(
            given.iter().map(of).collect::<Vec<_>>(),
            [("t1".to_owned(), accepted)]
        );
        assert_eq!(given[0].openid, "o1");
        let taken = entered(EventKind::Change(choices));
        let revoked = LedgerEntry::Revoked { at };
        assert_eq!(
            taken.iter().map(of).collect::<Vec<_>>(),
            [("t2".to_owned(), revoked)]
        );
    }

    #[test]
    fn what_is_not_known_has_no_consequence() {
        let unknown = EventKind::Unknown {
            name: "text".into(),
        };
        assert_eq!(
            Consequence::of(tenant(1), &appid(), &event(unknown)),
            Consequence::Nothing
        );
    }
}
