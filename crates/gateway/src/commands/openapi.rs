//! `wxgate openapi`.

use crate::{failure::Failure, output::Output};

/// Prints the document, which is JSON whoever reads it.
pub(crate) fn run(output: Output) -> Result<(), Failure> {
    output.text(&api::openapi_json())
}
