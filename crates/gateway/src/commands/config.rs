//! `wxgate config`.

use serde_json::json;

use crate::{
    failure::Failure,
    output::{Output, table},
    settings::Settings,
};

/// Prints the settings in effect and where each came from.
pub(crate) fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let mode = settings.mode.as_str();
    let value = json!({"mode": mode, "settings": settings.shown(), "warnings": settings.warnings});
    output.result(&value, || {
        let row = |shown: &crate::settings::Shown| {
            vec![
                shown.name.to_owned(),
                shown.value.clone().unwrap_or_else(|| "-".to_owned()),
                shown.source.clone(),
            ]
        };
        let rows: Vec<_> = settings.shown().iter().map(row).collect();
        format!(
            "{}\nmode: {mode}\n",
            table(&["setting", "value", "from"], &rows)
        )
    })
}
