//! The formats of typed template values.

pub(super) fn is_chinese(c: char) -> bool {
    matches!(c, '\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

pub(super) fn is_symbol(c: char) -> bool {
    !c.is_alphanumeric() && !is_chinese(c)
}

/// Whether `c` is invisible: white space, control characters, and the characters that Unicode calls default ignorable
/// or draws as a blank.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The currency signs of Unicode (general category Sc) that are used in prices.
fn is_currency(c: char) -> bool {
    matches!(c, '$' | '\u{a2}'..='\u{a5}' | '\u{e3f}' | '\u{20a0}'..='\u{20cf}' | '\u{fe69}' | '\u{ff04}' | '\u{ffe0}'
        | '\u{ffe1}' | '\u{ffe5}' | '\u{ffe6}')
}

pub(super) fn is_decimal(value: &str, max_digits: usize) -> bool {
    let unsigned = value.strip_prefix(['-', '+']).unwrap_or(value);
    let digits = unsigned.chars().filter(char::is_ascii_digit).count();
    let points = unsigned.chars().filter(|c| *c == '.').count();
    (1..=max_digits).contains(&digits) && points <= 1 && digits + points == unsigned.chars().count()
}

pub(super) fn is_amount(value: &str) -> bool {
    let value = value.strip_suffix('元').unwrap_or(value);
    is_decimal(value.strip_prefix(is_currency).unwrap_or(value), 10)
}

pub(super) fn is_car_number(value: &str) -> bool {
    let chars: Vec<char> = value.chars().collect();
    let inner_is_plain = chars
        .get(1..chars.len().saturating_sub(1))
        .is_none_or(|inner| !inner.iter().copied().any(is_chinese));
    (1..=8).contains(&chars.len()) && inner_is_plain
}

/// At most 10 characters of Chinese, or 20 letters or symbols; a mixture counts as Chinese. Digits are not allowed.
pub(super) fn is_name(value: &str) -> bool {
    let most = if value.chars().any(is_chinese) {
        10
    } else {
        20
    };
    value.encode_utf16().count() <= most && !value.chars().any(char::is_numeric)
}

pub(super) fn in_range(value: &str, part: fn(&str) -> bool) -> bool {
    match value.split_once('~') {
        Some((from, to)) => part(from) && part(to),
        None => part(value),
    }
}

/// `HH:MM` or `HH:MM:SS`, alone or after a date.
pub(super) fn is_time(value: &str) -> bool {
    match value.rsplit_once(' ') {
        Some((date, clock)) => is_day(date) && is_clock(clock),
        None => {
            is_clock(value)
                || value
                    .split_once('日')
                    .is_some_and(|(date, clock)| is_day(&format!("{date}日")) && is_clock(clock))
        }
    }
}

/// A day or a month, optionally with a time.
pub(super) fn is_date(value: &str) -> bool {
    is_day(value) || (value.contains(':') && is_time(value) && !is_clock(value))
}

fn is_clock(value: &str) -> bool {
    let parts: Vec<&str> = value.split(':').collect();
    let limits = [24, 60, 60];
    (2..=3).contains(&parts.len())
        && parts
            .iter()
            .zip(limits)
            .all(|(part, limit)| is_number_below(part, limit))
}

fn is_number_below(part: &str, limit: u32) -> bool {
    (1..=2).contains(&part.len())
        && part.bytes().all(|byte| byte.is_ascii_digit())
        && part.parse::<u32>().is_ok_and(|number| number < limit)
}

/// `2024年9月17日`, `2024年9月`, `9月17日`, or year, month and day with `-`, `/` or `.`.
fn is_day(value: &str) -> bool {
    let year = |text: &str| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
    let month = |text: &str| is_number_below(text, 13) && text.parse() != Ok(0);
    let day = |text: &str| is_number_below(text, 32) && text.parse() != Ok(0);
    if let Some((head, rest)) = value.split_once('月') {
        let month_ok = match head.split_once('年') {
            Some((y, m)) => year(y) && month(m),
            None => month(head) && !rest.is_empty(),
        };
        return month_ok && (rest.is_empty() || rest.strip_suffix('日').is_some_and(day));
    }
    for separator in ['-', '/', '.'] {
        let parts: Vec<&str> = value.split(separator).collect();
        match parts[..] {
            [y, m, d] => return year(y) && month(m) && day(d),
            [a, b] => return (year(a) && month(b)) || (month(a) && day(b)),
            _ => {}
        }
    }
    false
}
