//! The syntax of a table: its separator, and whether each quote is closed.

/// The possible separators of columns.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The most frequent separator with which the first line has a column `touser`; the comma if there is none.
pub(super) fn separator(text: &str) -> u8 {
    let head = text.split(['\n', '\r']).next().unwrap_or_default();
    let names_user = |separator: &u8| {
        head.split(char::from(*separator))
            .any(|name| name.trim().trim_matches('"').trim() == "touser")
    };
    // With equal counts `max_by_key` takes the last one: the comma.
    let found = SEPARATORS.into_iter().rev().filter(names_user);
    // A column name may contain another of the possible separators.
    let most = found.max_by_key(|separator| head.matches(char::from(*separator)).count());
    most.unwrap_or(b',')
}

/// The line of the first unclosed quote: all text up to the next quote would be read as one value.
pub(super) fn unclosed_quote(text: &str, separator: u8) -> Option<u64> {
    let bytes = text.as_bytes();
    let (mut line, mut at, mut begins) = (1, 0, true);
    while let Some(byte) = bytes.get(at) {
        if *byte == b'"' && begins {
            let opened = line;
            at += 1;
            loop {
                match (bytes.get(at), bytes.get(at + 1)) {
                    (None, _) => return Some(opened),
                    (Some(b'"'), Some(b'"')) => at += 2,
                    (Some(b'"'), _) => break,
                    (Some(_), _) => {
                        line += u64::from(ends_line(bytes, at));
                        at += 1;
                    }
                }
            }
            at += 1;
            match bytes.get(at) {
                None | Some(b'\n' | b'\r' | b' ') => {}
                Some(next) if *next == separator => {}
                Some(_) => return Some(opened),
            }
            begins = false;
            continue;
        }
        begins = *byte == separator || matches!(byte, b'\n' | b'\r');
        line += u64::from(ends_line(bytes, at));
        at += 1;
    }
    None
}

/// Whether this byte ends a line. A line ends with CR, LF or both.
fn ends_line(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_and_tabs_separate_as_commas_do() {
        for (head, separator) in [
            ("touser,thing1", b','),
            ("touser;thing1", b';'),
            ("thing1\ttouser", b'\t'),
            ("\"touser\";\"thing1\"", b';'),
            ("touser", b','),
            ("openid;thing1", b','),
        ] {
            assert_eq!(super::separator(&format!("{head}\nx")), separator, "{head}");
        }
    }

    #[test]
    fn an_unclosed_quote_is_blamed_on_the_line_that_opens_it() {
        for (table, line) in [
            ("touser,thing1\no1,\"tea\no2,x\no3,y\n", Some(2)),
            ("touser,thing1\no1,fine\no2,\"tea\no3,\"x\"\n", Some(3)),
            ("touser,thing1\r\no1,\"a\r\nb\"\r\no2,\"tea\r\n", Some(4)),
            (
                "touser,thing1\no1,\"two \"\"words\"\"\nmore\"\no2,5\" disk\n",
                None,
            ),
            ("touser,thing1\no1,\"\"\no2,\"x\" \n", None),
        ] {
            assert_eq!(unclosed_quote(table, b','), line, "{table:?}");
        }
    }
}
