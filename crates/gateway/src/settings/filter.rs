//! Checks the filter for log lines. The filter's own parser accepts a misspelt level as the name of a module, and then
//! logs nothing.

use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Error: the fault of the filter.
pub(crate) fn check(text: &str) -> Result<(), String> {
    for directive in text.split(',') {
        check_directive(directive.trim())?;
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// How to write a filter.
pub(crate) fn advice() -> String {
    format!(
        "must be one of {}, or comma-separated directives such as warn,wxgate_broker=debug",
        LEVELS.join(", ")
    )
}

fn check_directive(directive: &str) -> Result<(), String> {
    match directive.rsplit_once('=') {
        // `[span{field=value}]` and `target[span]` enable all levels.
        _ if directive.ends_with(']') => Ok(()),
        None if is_level(directive) => Ok(()),
        None if directive.is_empty() => Err("a directive is empty".to_owned()),
        None => Err(format!("`{directive}` is not a level")),
        Some((_, level)) if is_level(level) => Ok(()),
        Some((_, "")) => Err(format!("`{directive}` has no level")),
        Some((_, level)) => Err(format!("`{level}` in `{directive}` is not a level")),
    }
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken() {
        for fine in [
            "info",
            "WARN",
            "off",
            "warn,wxgate_broker=debug",
            "info,[send{appid=wx1}]=debug",
            "warn,wxgate_delivery[send]",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
    }

    #[test]
    fn what_would_silence_the_gateway_is_refused() {
        for (wrong, named) in [
            ("warning", "`warning`"),
            ("verbose", "`verbose`"),
            ("bogus=", "`bogus=`"),
            ("info,wxgate_broker", "`wxgate_broker`"),
            ("wxgate_broker=loud", "`loud`"),
            ("info,", "empty"),
            (" ", "empty"),
        ] {
            let why = check(wrong).unwrap_err();
            assert!(why.contains(named), "{wrong}: {why}");
        }
        assert!(advice().contains("trace") && advice().contains("wxgate_broker=debug"));
    }
}
