//! A simulator of WeChat that follows WeChat's rules and misbehaves on request.
//!
//! The simulator is the upstream of `wxgate simulate` and `wxgate dev`, of every test and of every benchmark. The
//! simulator does not depend on the gateway: all types here follow WeChat's documentation and observations of WeChat's
//! users.
//!
//! ```
//! use wxgate_simulator::{Effect, Fault, Options, Simulator};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let wechat = Simulator::start(Options::default()).await?;
//! let control = wechat.control();
//! control.change_app("wx0a1b2c3d4e5f6789", |app| app.secret = Some("s3cret".into()));
//! control.add_fault(Fault::next(1, Effect::BreakAfter).for_path("/cgi-bin/message/subscribe/send"));
//! // … point a client at `wechat.base_url()` …
//! assert_eq!(control.duplicates("wx0a1b2c3d4e5f6789").max_per_openid, 0);
//! wechat.stop().await;
//! # Ok::<(), wxgate_simulator::SimulatorStartError>(())
//! # }).unwrap();
//! ```
//!
//! # Guarantees
//!
//! * Without any set-up, every appid of WeChat's shape (`wx` and sixteen lower-case letters or digits) with any secret
//!   is a mini program from the first token fetch on. [`AppSettings`] makes an account stricter, field by field.
//! * API errors have HTTP status 200 and an `errmsg` that ends in ` rid: …`; the first group of the rid is the time.
//! * A call acts on arrival; latency delays the answer. A message is sent even if the sender stops waiting.
//! * Days begin at 00:00 in Shanghai by the [`SimClock`], never by the machine's clock alone.
//! * [`Sent`], [`Duplicates`] and [`Stats`] count *accepted* messages, including those with a lost answer.
//! * The simulator signs and encrypts callbacks with separate code, written from WeChat's documentation, and posts each
//!   callback up to three times.
//! * A broken connection is reset; no client ever sees a partial answer that could pass for a whole one.
//!
//! # The calls of WeChat
//!
//! `GET /cgi-bin/token`, `POST /cgi-bin/stable_token`, `POST /cgi-bin/message/subscribe/send`,
//! `POST /cgi-bin/message/wxopen/template/send`, `POST /cgi-bin/message/template/send`,
//! `GET /wxaapi/newtmpl/gettemplate`, `POST /cgi-bin/wxopen/template/list`,
//! `GET /cgi-bin/template/get_all_private_template`, `POST /cgi-bin/openapi/quota/get`, `POST /cgi-bin/clear_quota`,
//! `POST /cgi-bin/clear_quota/v2`, `GET /cgi-bin/get_api_domain_ip`, `GET /sns/jscode2session`.
//! Every other path answers 40066.
//!
#![doc = include_str!("../controls.md")]
//!
//! # How to extend the simulator
//!
//! A new endpoint: a variant of `CallEndpoint`, an arm in `calls::serve`, a file or function in `calls/`. A new rule: in
//! the module of that noun (`token`, `grants`, `form_ids`, `values`, `quota`), as a function of the arguments and
//! `now`, with a test. A new misbehaviour: a variant of [`Effect`] and an arm in `calls::run`.

mod account;
mod app;
mod calls;
mod clock;
mod control;
mod control_api;
mod endpoint;
mod faults;
mod form_ids;
mod grants;
#[cfg(test)]
mod http_tests;
mod ids;
mod journal;
mod message;
mod options;
mod push;
mod quota;
mod refusal;
mod server;
mod simulator;
mod stats;
mod sync;
mod template;
mod token;
mod values;
mod world;

pub use account::{
    AccountKind, AccountState, AppSettings, CallLimits, FormIdPolicy, GrantRule, UserPolicy,
};
pub use clock::SimClock;
pub use control::Control;
pub use faults::{Effect, Fault, FaultReport, Shape};
pub use form_ids::{FormId, FormIdKind};
pub use journal::{Duplicates, Repeated, Sent};
pub use options::Options;
pub use push::{
    CallbackRequest, PushError, PushEvent, PushFormat, PushMode, PushReceipt, PushSettings,
};
pub use simulator::{Simulator, SimulatorStartError};
pub use stats::Stats;
pub use template::{KeywordEnum, ListedTemplate};
