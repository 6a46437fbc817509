//! `wxgate config`.

use std::path::Path;

use serde_json::json;

use crate::{
    embedded,
    failure::Failure,
    output::{Output, table},
    settings::{Settings, ShownSetting},
};

/// Prints the settings in effect and the source of each.
pub(crate) fn run(settings: &Settings, output: Output) -> Result<(), Failure> {
    let mode = settings.mode.as_str();
    let all: Vec<ShownSetting> = settings.shown().iter().cloned().map(absolute).collect();
    let value = json!({"mode": mode, "settings": all, "warnings": settings.warnings});
    output.result(&value, || {
        let row = |shown: &ShownSetting| {
            vec![
                shown.name.to_owned(),
                shown.value.clone().unwrap_or_else(|| "-".to_owned()),
                shown.source.clone(),
            ]
        };
        let rows: Vec<_> = all.iter().map(row).collect();
        format!(
            "{}\nmode: {mode}\n",
            table(&["setting", "value", "from"], &rows)
        )
    })
}

/// Makes file paths absolute, so that the printed path does not depend on the current folder.
fn absolute(shown: ShownSetting) -> ShownSetting {
    let value = shown.value.map(|value| match shown.name {
        "database_url" => embedded::absolute_url(&value),
        "master_key_file" | "master_key_previous_file" => {
            embedded::absolute(Path::new(&value)).display().to_string()
        }
        _ => value,
    });
    ShownSetting { value, ..shown }
}
