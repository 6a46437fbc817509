//! The templates of the demo's mini-program, as the simulated WeChat lists them.

use simulator::{ListedTemplate, Simulator};

use super::{
    APPID,
    client::{PAID, SHIPPED},
};

/// The template that the programs in `tests/clients` use.
const TRIED: &str = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

/// Adds the templates to the demo's mini-program.
pub(crate) fn furnish(simulator: &Simulator) {
    simulator.control().change_app(APPID, |app| {
        app.templates = vec![
            template(
                SHIPPED,
                "Order shipped",
                &[
                    ("Goods", "thing1", "Coffee beans"),
                    ("Arrives", "date2", "2026-03-01"),
                ],
            ),
            template(
                TRIED,
                "Something new",
                &[("What", "thing1", "Coffee beans")],
            ),
        ];
        app.wxopen_templates = vec![template(
            PAID,
            "Order paid",
            &[
                ("Order", "keyword1", "Coffee, large"),
                ("Amount", "keyword2", "¥ 18.00"),
            ],
        )];
    });
}

/// A template with these lines, each with a label, a key and an example.
fn template(id: &str, title: &str, lines: &[(&str, &str, &str)]) -> ListedTemplate {
    let written = |value: fn(&str, &str) -> String| {
        let line = |(label, key, example): &(&str, &str, &str)| {
            format!("{label}:{}\n", value(key, example))
        };
        lines.iter().map(line).collect()
    };
    ListedTemplate {
        title: title.to_owned(),
        content: written(|key, _| format!("{{{{{key}.DATA}}}}")),
        example: written(|_, example| example.to_owned()),
        ..ListedTemplate::one_time(id, &[])
    }
}
