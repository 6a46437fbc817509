//! The templates of the demo's mini-program, which WeChat lists.

use simulator::{Simulator, Template};

use super::{
    APPID,
    client::{PAID, SHIPPED},
};

/// The one that the programs of `tests/clients` send.
const TRIED: &str = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k";

/// Gives the demo's mini-program its templates.
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

/// A template with these lines: what each is called, its key, an example.
fn template(id: &str, title: &str, lines: &[(&str, &str, &str)]) -> Template {
    let written = |value: fn(&str, &str) -> String| {
        let line = |(label, key, example): &(&str, &str, &str)| {
            format!("{label}:{}\n", value(key, example))
        };
        lines.iter().map(line).collect()
    };
    Template {
        title: title.to_owned(),
        content: written(|key, _| format!("{{{{{key}.DATA}}}}")),
        example: written(|_, example| example.to_owned()),
        ..Template::one_time(id, &[])
    }
}
