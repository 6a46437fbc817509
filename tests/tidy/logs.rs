//! Log lines: a field must not have a name that every line has already.

use crate::workspace::{root, shown, sources};

/// The name of a line's text. A field of this name would be in a JSON line twice, and parsers keep one of the two.
const TAKEN: &str = "message";

/// The macros that begin an event.
const MACROS: [&str; 6] = [
    "::trace!(",
    "::debug!(",
    "::info!(",
    "::warn!(",
    "::error!(",
    "::event!(",
];

/// The names of the fields of the event whose arguments `rest` begins with.
fn fields(rest: &str) -> Vec<String> {
    let (mut fields, mut argument, mut depth, mut in_text) = (Vec::new(), String::new(), 0, false);
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if in_text => {
                characters.next();
                continue;
            }
            '"' => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' | ']' | '}' if !in_text && depth == 0 => break,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                fields.push(std::mem::take(&mut argument));
                continue;
            }
            _ => {}
        }
        argument.push(character);
    }
    fields.push(argument);
    // The arguments after the text are formatted into the text.
    let fields = fields.iter().map(|field| field.trim());
    let fields = fields.take_while(|field| !field.starts_with('"'));
    let name = |field: &str| {
        let name = field.split('=').next().unwrap_or_default();
        name.trim().trim_start_matches(['%', '?']).to_owned()
    };
    fields.map(name).collect()
}

fn named_twice(source: &str) -> usize {
    let begins = MACROS.iter().flat_map(|name| source.match_indices(name));
    let begins = begins.map(|(at, found)| at + found.len());
    let has = |at: usize| fields(&source[at..]).iter().any(|name| name == TAKEN);
    begins.filter(|at| has(*at)).count()
}

#[test]
fn no_field_of_a_log_line_is_called_as_its_text() {
    for path in sources(&root().join("crates")) {
        let source = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            named_twice(&source),
            0,
            "{}: a field of an event is called `{TAKEN}`, as the text of every line is: call it `message_id`",
            shown(&path)
        );
    }
}

#[test]
fn the_rule_finds_what_it_is_for() {
    for (source, wanted) in [
        (r#"tracing::warn!(message = %id, "late")"#, 1),
        (r#"tracing::error!(error, message, "x {message}")"#, 1),
        (r#"tracing::error!(%error, ?message, "x")"#, 1),
        (r#"tracing::warn!(message_id = %id, "a (b", message)"#, 0),
        (r#"tracing::warn!(id = f(message, 1), "\"message, x")"#, 0),
    ] {
        assert_eq!(named_twice(source), wanted, "{source}");
    }
}
