//! The arguments of `wxgate import`, and the content of its file.

use std::{io::Read, path::PathBuf};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use domain::{app::AppId, message::Priority};

use super::{
    lines::Form,
    text::{self, DecodedText},
};
use crate::failure::Failure;

const FORMS: &str = "\
Columns of FILE.csv: `touser` (the openid), one column for each key of the template, such as `thing1`, and `page` where the
card opens a page. The first line has the names of the columns, separated by `,`, `;` or tabs. The encoding of the file is
UTF-8, UTF-16 or GB18030 (GBK). FILE.ndjson has one message object a line, with the fields of
POST /v1/apps/{appid}/messages. Where a line has no `template_id`, `priority` or `ttl`, the value of the option applies.

After a stop or a failure run the command again: for 30 days the command does not send an accepted message a second time.
The content of a line identifies its message, the position does not: correct refused lines in the file, or add lines, and
run the command again. A line that is in the file twice is sent twice.";

/// The arguments of `wxgate import`.
#[derive(Args, Debug)]
#[command(after_help = FORMS)]
pub(crate) struct Arguments {
    /// The messages: FILE.csv or FILE.ndjson, or `-` for standard input, which needs --format
    pub(super) file: PathBuf,
    /// The format of the file, if the file name does not show the format
    #[arg(long, value_parser = form())]
    pub(super) format: Option<Form>,
    /// The app that sends the messages: wx…
    #[arg(long)]
    pub(super) appid: AppId,
    /// The id of the template
    #[arg(long, value_name = "ID")]
    pub(super) template: String,
    /// The priority of the messages; low priority leaves a part of the daily quota to other messages
    #[arg(long, default_value = "low", value_parser = priority())]
    pub(super) priority: Priority,
    /// The time in seconds after which an unsent message expires
    #[arg(long, value_name = "SECONDS")]
    pub(super) ttl: Option<u64>,
    /// A name that makes this import different from an earlier one, to send the same lines once more
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(super) name: String,
    /// Check every line, also against the templates that WeChat lists, and send nothing
    #[arg(long)]
    pub(super) check: bool,
    /// Write refused lines into this new file, to correct and import them
    #[arg(long, value_name = "FILE")]
    pub(super) rejects: Option<PathBuf>,
    /// Return as soon as all messages are in the queue; a running gateway sends the messages
    #[arg(long)]
    pub(super) no_wait: bool,
}

fn form() -> impl TypedValueParser<Value = Form> {
    PossibleValuesParser::new(["csv", "ndjson"]).map(|word| match word.as_str() {
        "ndjson" => Form::Ndjson,
        _ => Form::Csv,
    })
}

impl Arguments {
    /// The format of the file, from the option or from the ending of the file name.
    pub(super) fn form(&self) -> Result<Form, Failure> {
        let ending = self.file.extension().and_then(|ending| ending.to_str());
        self.format.or_else(|| ending.and_then(Form::of)).ok_or_else(|| {
            let words = "the name of the file does not show its format: use a name that ends in .csv or .ndjson, or add --format csv or --format ndjson";
            Failure::new("usage", words)
        })
    }

    /// The content of the file.
    pub(super) fn content(&self) -> Result<DecodedText, Failure> {
        let mut bytes = Vec::new();
        let read = if self.file.as_os_str() == "-" {
            std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
        } else {
            std::fs::read(&self.file).map(|content| bytes = content)
        };
        read.map_err(|error| {
            let words = format!(
                "cannot read {} ({error}): check the path and the permissions of the file",
                self.file.display()
            );
            Failure::new("usage", words)
        })?;
        text::decode(bytes)
    }
}

fn priority() -> impl TypedValueParser<Value = Priority> {
    PossibleValuesParser::new(["high", "normal", "low"]).map(|word| match word.as_str() {
        "high" => Priority::High,
        "normal" => Priority::Normal,
        _ => Priority::Low,
    })
}
