//! `wxgate openapi`.

use clap::{Args, ValueEnum};

use crate::{failure::Failure, output::Output};

/// The document and its form.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The API to document: the gateway's own API, or the interface in WeChat's form (calls for SDKs, and callbacks)
    #[arg(long, value_enum, default_value_t = Document::Api, value_name = "PART")]
    part: Document,
    /// The OpenAPI version of the document; 3.0 is for generators that cannot read 3.1
    #[arg(long, value_enum, default_value_t = Version::V3_1, value_name = "VERSION")]
    openapi_version: Version,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Document {
    Api,
    DropIn,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    #[value(name = "3.1")]
    V3_1,
    #[value(name = "3.0")]
    V3_0,
}

/// Prints the document: JSON, with and without `--json`.
pub(crate) fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    let part = match arguments.part {
        Document::Api => api::Part::Api,
        Document::DropIn => api::Part::DropIn,
    };
    output.text(&match arguments.openapi_version {
        Version::V3_1 => part.json(),
        Version::V3_0 => part.json_3_0(),
    })
}
