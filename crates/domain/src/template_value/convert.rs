//! Rewrites values that break the rule of their type into the form that WeChat accepts, where the meaning is certain.

use super::Kind;

/// The value of the template key `key` in the form that the key's type accepts; `None`: the value is valid as given, or
/// no other form has the same meaning.
///
/// Full-width digits, letters, colons and tildes become ASCII. Blanks around the value and around `~`, and thousands
/// separators, are removed.
pub fn converted(key: &str, value: &str) -> Option<String> {
    let kind = Kind::of(key);
    if kind.accepts(value) {
        return None;
    }
    let narrow: String = value.trim().chars().map(narrow).collect();
    let form = match kind {
        Kind::Letter | Kind::PhoneNumber => narrow,
        Kind::Time | Kind::Date => close_range(&narrow),
        Kind::Number | Kind::Amount => without_separators(&narrow)?,
        _ => return None,
    };
    (!form.is_empty() && kind.accepts(&form)).then_some(form)
}

/// The ASCII form of a full-width character.
fn narrow(c: char) -> char {
    match c {
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(c) - 0xff01 + u32::from('!')).unwrap_or(c)
        }
        '\u{3000}' => ' ',
        // The wave dash and the tilde operator, which input methods produce for a range.
        '\u{301c}' | '\u{223c}' => '~',
        other => other,
    }
}

/// A range without blanks around its `~`.
fn close_range(value: &str) -> String {
    match value.split_once('~') {
        Some((from, to)) => format!("{}~{}", from.trim_end(), to.trim_start()),
        None => value.to_owned(),
    }
}

/// A number without thousands separators; `None`: the commas do not separate groups of three digits.
fn without_separators(value: &str) -> Option<String> {
    let whole = value.split('.').next().unwrap_or_default();
    let groups_of_three = whole.split(',').skip(1).all(|group| {
        let digits = group.strip_suffix('元').unwrap_or(group);
        digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    let in_fraction = value.matches(',').count() > whole.matches(',').count();
    (groups_of_three && !in_fraction).then(|| value.replace(',', ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check;
    use super::*;

    #[test]
    fn a_value_whose_meaning_is_certain_takes_wechats_form() {
        for (key, value, form) in [
            (
                "time1",
                "2021年10月25日 09:00～09:30",
                "2021年10月25日 09:00~09:30",
            ),
            ("time1", "18：30", "18:30"),
            ("time1", "08:00 〜 09:00", "08:00~09:00"),
            ("time1", " 18:30\u{3000}", "18:30"),
            ("date1", "２０２４年９月１７日", "2024年9月17日"),
            ("date1", "2024-09-17 18：30", "2024-09-17 18:30"),
            ("amount1", "￥1,234.50", "￥1234.50"),
            ("amount1", "１２．５元", "12.5元"),
            ("amount1", "1,234元", "1234元"),
            ("number1", "1，234，567", "1234567"),
            ("letter1", "ＡＢＣ", "ABC"),
            ("phone_number1", "１３８００００００００", "13800000000"),
        ] {
            assert_eq!(
                converted(key, value).as_deref(),
                Some(form),
                "{key} = {value}"
            );
        }
    }

    #[test]
    fn other_values_stay_as_they_are() {
        for (key, value) in [
            ("time1", "18:30"),
            ("time1", "tomorrow"),
            ("amount1", "12,34.5"),
            ("amount1", "1.234,50"),
            ("number1", "1,23"),
            ("name1", "user２５"),
            ("thing1", "０～９"),
            ("phrase1", "ＡＢ"),
            ("letter1", " "),
            ("phone_number1", "\u{3000}"),
        ] {
            assert_eq!(converted(key, value), None, "{key} = {value}");
        }
    }

    proptest! {
        #[test]
        fn a_converted_value_keeps_the_rule_and_is_converted_once(
            key in "(time|date|amount|number|letter|phone_number|name|thing)1",
            value in "[ 0-9０-９:：~～年月日,，.．¥￥元-]{0,20}",
        ) {
            if let Some(form) = converted(&key, &value) {
                prop_assert!(check(&key, &form).is_ok(), "{form}");
                prop_assert_eq!(converted(&key, &form), None);
            }
        }
    }
}
