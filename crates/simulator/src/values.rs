//! The limits of a template value by the type of the key (WeChat's value table; a violation answers 47003).

/// Whether WeChat accepts this value for this key, such as `thing2`. A type that the table does not list accepts every
/// value: the documentation admits that the table is not up to date.
pub(crate) fn fits(key: &str, value: &str) -> bool {
    if value.chars().any(char::is_control) {
        return false;
    }
    let length = value.chars().count();
    match key.trim_end_matches(|last: char| last.is_ascii_digit()) {
        "thing" | "const" | "enum_string" => length <= 20,
        "short_thing" => length <= 5,
        "number" => length <= 32 && is_number(value.strip_prefix('-').unwrap_or(value)),
        "letter" => length <= 32 && value.chars().all(|letter| letter.is_ascii_alphabetic()),
        "symbol" => length <= 5 && value.chars().all(is_symbol),
        "character_string" => length <= 32 && !value.chars().any(is_chinese),
        "time" => is_range(value, |part| is_moment(part, true)),
        "date" => is_range(value, |part| is_moment(part, false)),
        "amount" => is_amount(value),
        "phone_number" => {
            length <= 17
                && value
                    .chars()
                    .all(|sign| sign.is_ascii_digit() || is_symbol(sign))
        }
        "car_number" => length <= 8 && is_car_number(value),
        "name" => is_name(value, length),
        "phrase" => length <= 5 && value.chars().all(is_chinese),
        _ => true,
    }
}

fn is_chinese(sign: char) -> bool {
    matches!(sign, '\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2fa1f}')
}

fn is_symbol(sign: char) -> bool {
    !sign.is_alphanumeric() && !sign.is_control()
}

fn is_number(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    is_digits(whole, 1..=32) && is_digits(part, 1..=32)
}

fn is_digits(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
}

fn is_amount(value: &str) -> bool {
    let value = value.strip_suffix('元').unwrap_or(value);
    let value = value
        .strip_prefix([
            '\u{a5}', '\u{ffe5}', '$', '€', '£', '₩', '฿', '₽', '₹', '₫', '₱',
        ])
        .unwrap_or(value);
    let (whole, part) = value.split_once('.').unwrap_or((value, "0"));
    is_digits(whole, 1..=10) && is_digits(part, 1..=10)
}

fn is_car_number(value: &str) -> bool {
    let last = value.chars().count().saturating_sub(1);
    value.chars().enumerate().all(|(place, sign)| {
        sign.is_ascii_alphanumeric() || ((place == 0 || place == last) && is_chinese(sign))
    })
}

fn is_name(value: &str, length: usize) -> bool {
    let allowed = if value.chars().any(is_chinese) {
        10
    } else {
        20
    };
    length <= allowed && !value.chars().any(char::is_numeric)
}

/// Whether the value is one moment, or two moments separated by `~`, of which the second may omit the date.
fn is_range(value: &str, moment: impl Fn(&str) -> bool) -> bool {
    match value.split_once('~') {
        None => moment(value.trim()),
        Some((from, to)) => moment(from.trim()) && (moment(to.trim()) || is_time_of_day(to.trim())),
    }
}

/// Whether the text is a date, a time of day, or both. The key's type decides which part is required.
fn is_moment(text: &str, needs_time: bool) -> bool {
    if needs_time && is_time_of_day(text) {
        return true;
    }
    if !needs_time && is_date(text) {
        return true;
    }
    let Some(colon) = text.find(':') else {
        return false;
    };
    let hour = text[..colon]
        .bytes()
        .rev()
        .take(2)
        .take_while(u8::is_ascii_digit)
        .count();
    let (date, time) = text.split_at(colon - hour);
    is_date(date.trim_end()) && is_time_of_day(time)
}

fn is_time_of_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    (2..=3).contains(&parts.len())
        && parts
            .iter()
            .zip([24, 60, 60])
            .enumerate()
            .all(|(place, (part, end))| {
                let digits = if place == 0 { 1..=2 } else { 2..=2 };
                is_digits(part, digits) && part.parse::<u32>().is_ok_and(|number| number < end)
            })
}

fn is_date(text: &str) -> bool {
    if text.contains(['年', '月']) {
        let (year, rest) = match text.split_once('年') {
            Some((year, rest)) => (Some(year), rest),
            None => (None, text),
        };
        let Some((month, rest)) = rest.split_once('月') else {
            return false;
        };
        let day = rest.strip_suffix('日');
        return year.is_none_or(is_year)
            && is_part(month, 12)
            && match day {
                Some(day) => is_part(day, 31),
                None => rest.is_empty() && year.is_some(),
            };
    }
    ['-', '/', '.'].iter().any(|separator| {
        let parts: Vec<&str> = text.split(*separator).collect();
        match parts.as_slice() {
            [year, month, day] => is_year(year) && is_part(month, 12) && is_part(day, 31),
            [first, second] => {
                (is_year(first) && is_part(second, 12))
                    || (is_part(first, 12) && is_part(second, 31))
            }
            _ => false,
        }
    })
}

fn is_year(text: &str) -> bool {
    is_digits(text, 4..=4)
}

fn is_part(text: &str, most: u32) -> bool {
    is_digits(text, 1..=2)
        && text
            .parse::<u32>()
            .is_ok_and(|number| (1..=most).contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, good: &[&str], bad: &[&str]) {
        for value in good {
            assert!(fits(key, value), "{key} should take {value}");
        }
        for value in bad {
            assert!(!fits(key, value), "{key} should refuse {value}");
        }
    }

    #[test]
    fn words() {
        check(
            "thing2",
            &["保温杯 500ml", &"字".repeat(20)],
            &[&"字".repeat(21), "a\nb"],
        );
        check("phrase5", &["已发货"], &["已发货了啊呀", "ok"]);
        check(
            "name1",
            &["张三", "Ada Lovelace-King"],
            &["一二三四五六七八九十一", "张3", &"a".repeat(21)],
        );
        check("letter1", &["abcXYZ"], &["a1", &"a".repeat(33)]);
        check("symbol1", &["+-*"], &["+a", "++++++"]);
        check(
            "character_string1",
            &["20240917-001", "A_b"],
            &["订单1", &"1".repeat(33)],
        );
        check("short_thing4", &["五个字以内"], &["六个字不可以"]);
        check("mystery9", &["whatever it may be, however long"], &[]);
    }

    #[test]
    fn numbers() {
        check(
            "number1",
            &["12", "3.50"],
            &["1.2.3", "12a", &"1".repeat(33)],
        );
        check(
            "amount3",
            &["\u{ffe5}39.90", "¥39.90", "39.9元", "100"],
            &["¥¥1", "12345678901", "free"],
        );
        check(
            "phone_number1",
            &["+86-0766-66888866"],
            &["call me", "123456789012345678"],
        );
        check(
            "car_number1",
            &["粤A8Z888挂"],
            &["粤A粤8888", "粤A8Z888挂挂"],
        );
    }

    #[test]
    fn moments() {
        check(
            "time4",
            &[
                "15:01",
                "2024年9月17日 18:30",
                "2024-09-17 18:30:05",
                "08:00~09:00",
                "2024-09-17 08:00~09:00",
            ],
            &["25:00", "18:60", "2024-09-17", "soon"],
        );
        check(
            "date1",
            &[
                "2024年9月17日",
                "2024年9月",
                "9月17日",
                "2024-09-17",
                "2024/9/17 18:30",
                "2024.9.1~2024.9.3",
            ],
            &["2024-13-01", "18:30", "17日", "9月"],
        );
    }
}
