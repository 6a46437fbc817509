//! `wxgate openapi`.

use clap::{Args, ValueEnum};

use crate::{failure::Failure, output::Output};

/// Which form of the document.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The version of OpenAPI that it is written in: 3.0 is for generators that read no 3.1
    #[arg(long, value_enum, default_value_t = Version::V3_1, value_name = "VERSION")]
    openapi_version: Version,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    #[value(name = "3.1")]
    V3_1,
    #[value(name = "3.0")]
    V3_0,
}

/// Prints the document, which is JSON whoever reads it.
pub(crate) fn run(output: Output, arguments: &Arguments) -> Result<(), Failure> {
    output.text(&match arguments.openapi_version {
        Version::V3_1 => api::openapi_json(),
        Version::V3_0 => api::openapi_3_0_json(),
    })
}
