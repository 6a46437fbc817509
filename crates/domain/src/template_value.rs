//! The value rules of message templates.
//!
//! A key is a type and a number (`thing2`); the type limits the value. WeChat answers 47003 to a value that breaks its
//! rule, and by then the gateway has spent a call. The gateway therefore checks the rules first. WeChat's documentation
//! admits that its list of types can be out of date: the check accepts keys of unknown type.
//!
//! Lengths are in UTF-16 units, the safe interpretation, because WeChat does not say how WeChat counts emoji.

use std::fmt;

use shapes::{
    in_range, is_amount, is_car_number, is_chinese, is_date, is_decimal, is_invisible, is_name,
    is_symbol, is_time,
};

mod convert;
mod shapes;

pub use convert::converted;

/// The maximum length of a `thing`.
const THING: usize = 20;

/// A violated rule of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    kind: Kind,
    broken: Broken,
}

impl Rule {
    /// Whether the violated rule is one of the value's type. WeChat does not enforce the rules of types for some
    /// accounts. No account may leave a value empty.
    pub fn is_of_type(self) -> bool {
        self.broken != Broken::Empty
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Empty,
    Control,
    Shape,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.broken {
            Broken::Empty => {
                f.write_str("must not be empty: blanks and invisible characters do not count")
            }
            Broken::Control => f.write_str("must not have line breaks or other control characters"),
            Broken::Shape => write!(f, "must be {}", self.kind.wants()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thing,
    ShortThing,
    Number,
    Letter,
    Symbol,
    CharacterString,
    Time,
    Date,
    Amount,
    PhoneNumber,
    CarNumber,
    Name,
    Phrase,
    Const,
    /// One of the values that the template lists.
    EnumString,
    /// A type that this table does not contain.
    Other,
}

impl Kind {
    fn of(key: &str) -> Self {
        match key.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "thing" => Self::Thing,
            "short_thing" => Self::ShortThing,
            "number" => Self::Number,
            "letter" => Self::Letter,
            "symbol" => Self::Symbol,
            "character_string" => Self::CharacterString,
            "time" => Self::Time,
            "date" => Self::Date,
            "amount" => Self::Amount,
            "phone_number" => Self::PhoneNumber,
            "car_number" => Self::CarNumber,
            "name" => Self::Name,
            "phrase" => Self::Phrase,
            "const" => Self::Const,
            "enum_string" => Self::EnumString,
            _ => Self::Other,
        }
    }

    fn wants(self) -> &'static str {
        match self {
            Self::Thing | Self::Const => {
                "at most 20 characters, where an emoji counts as two or more (UTF-16 units)"
            }
            Self::ShortThing => {
                "at most 5 characters, where an emoji counts as two or more (UTF-16 units)"
            }
            Self::Number => "at most 32 digits, decimals allowed",
            Self::Letter => "at most 32 letters",
            Self::Symbol => "at most 5 symbols",
            Self::CharacterString => "at most 32 digits, letters or symbols, without Chinese",
            Self::Time => "a 24-hour time such as 18:30, a date may come first, a~b for a range",
            Self::Date => {
                "a date such as 2024年9月17日 or 2024-09-17, a time may follow, a~b for a range"
            }
            Self::Amount => {
                "one currency sign and at most 10 digits, decimals allowed, 元 may follow"
            }
            Self::PhoneNumber => "at most 17 digits or symbols",
            Self::CarNumber => "at most 8 characters; the first and the last may be Chinese",
            Self::Name => {
                "at most 10 Chinese characters, or at most 20 letters or symbols, without digits"
            }
            Self::Phrase => "at most 5 Chinese characters",
            Self::EnumString => "one of the template's values",
            Self::Other => "a value that WeChat accepts",
        }
    }

    fn accepts(self, value: &str) -> bool {
        let length = value.encode_utf16().count();
        match self {
            Self::Thing | Self::Const => length <= THING,
            Self::ShortThing => length <= 5,
            Self::Number => is_decimal(value, 32),
            Self::Letter => length <= 32 && value.chars().all(|c| c.is_ascii_alphabetic()),
            Self::Symbol => length <= 5 && value.chars().all(is_symbol),
            Self::CharacterString => length <= 32 && !value.chars().any(is_chinese),
            Self::Time => in_range(value, is_time),
            Self::Date => in_range(value, is_date),
            Self::Amount => is_amount(value),
            Self::PhoneNumber => {
                length <= 17 && value.chars().all(|c| c.is_ascii_digit() || is_symbol(c))
            }
            Self::CarNumber => is_car_number(value),
            Self::Name => is_name(value),
            Self::Phrase => length <= 5 && value.chars().all(is_chinese),
            Self::EnumString | Self::Other => true,
        }
    }
}

/// Whether the type of the template key `key` has a rule here.
pub fn is_known(key: &str) -> bool {
    Kind::of(key) != Kind::Other
}

/// What the value of the template key `key` must be, as the words after "must be"; `None`: the type has no rule here.
pub fn rule(key: &str) -> Option<&'static str> {
    let kind = Kind::of(key);
    (kind != Kind::Other).then(|| kind.wants())
}

/// The value, cut to the maximum length of the template key `key`, with `…` at the end. `None`: the value is not too
/// long, or a cut value of this type would have another meaning.
pub fn truncated(key: &str, value: &str) -> Option<String> {
    const MARK: char = '…';
    if Kind::of(key) != Kind::Thing || Kind::Thing.accepts(value) {
        return None;
    }
    let mut room = THING - MARK.len_utf16();
    let fits = |c: &char| match room.checked_sub(c.len_utf16()) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    };
    let mut cut: String = value.chars().take_while(fits).collect();
    cut.truncate(cut.trim_end().len());
    cut.push(MARK);
    Some(cut)
}

/// Whether `value` has no visible character: WeChat treats such a value as empty.
pub fn is_blank(value: &str) -> bool {
    value.chars().all(is_invisible)
}

/// Checks the value of the template key `key`.
pub fn check(key: &str, value: &str) -> Result<(), Rule> {
    let kind = Kind::of(key);
    let broken = if is_blank(value) {
        Broken::Empty
    } else if value.chars().any(char::is_control) {
        Broken::Control
    } else if !kind.accepts(value) {
        Broken::Shape
    } else {
        return Ok(());
    };
    Err(Rule { kind, broken })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(key: &str, value: &str) -> bool {
        check(key, value).is_err()
    }

    #[test]
    fn every_type_has_its_rule() {
        let good = [
            ("thing2", "保温杯 500ml"),
            ("thing10", "12345678901234567890"),
            ("short_thing1", "一二三四五"),
            ("number1", "-3.14"),
            ("letter1", "abcXYZ"),
            ("symbol1", "★☆!"),
            ("character_string1", "20240917001-A"),
            ("time4", "2024年9月17日 18:30"),
            ("time4", "18:30:05"),
            ("time4", "2024-09-17 08:00~2024-09-17 09:00"),
            ("time4", "2015年01月05日 12:30"),
            ("date1", "2024年9月17日"),
            ("date1", "2024年9月"),
            ("date1", "9月17日"),
            ("date1", "2024.09.17"),
            ("date1", "2024-09-17 18:30"),
            ("amount3", "¥39.90"),
            ("amount3", "39.9元"),
            ("amount3", "100"),
            ("phone_number1", "+86-0766-66888866"),
            ("car_number1", "粤A8Z888挂"),
            ("name1", "张三"),
            ("name1", "Alexander Hamilton"),
            ("phrase5", "已发货"),
            ("enum_string1", "什么都行"),
            ("keyword1", "anything at all, however long it may be"),
        ];
        for (key, value) in good {
            assert_eq!(check(key, value), Ok(()), "{key} = {value}");
        }
        let bad = [
            ("thing2", "一二三四五六七八九十一二三四五六七八九十零"),
            ("thing2", ""),
            ("thing2", " "),
            ("thing2", "\u{200b}"),
            ("thing2", "\u{feff}\u{3164}\u{2060} "),
            ("thing2", "😀😀😀😀😀😀😀😀😀😀😀"),
            ("thing2", "a\nb"),
            ("short_thing1", "123456"),
            ("number1", "12a"),
            ("number1", "1.2.3"),
            ("letter1", "abc1"),
            ("symbol1", "ab"),
            ("character_string1", "订单1"),
            ("character_string1", "123456789012345678901234567890123"),
            ("time4", "25:00"),
            ("time4", "tomorrow"),
            ("time4", "2021年10月25日 09:00～09:30"),
            ("time4", "18：30"),
            ("time4", " 18:30"),
            ("time4", "+8:30"),
            ("date1", "2024年13月"),
            ("date1", "18:30"),
            ("amount3", "¥¥3"),
            ("amount3", "12345678901"),
            ("amount3", "#100"),
            ("amount3", "1,234.50"),
            ("phone_number1", "123456789012345678"),
            ("car_number1", "粤A8中888"),
            ("car_number1", "粤A88888888"),
            ("name1", "一二三四五六七八九十一"),
            ("name1", "abcdefghijklmnopqrstu"),
            ("name1", "user25"),
            ("name1", "用户410774"),
            ("name1", "张三２"),
            ("phrase5", "shipped"),
            ("phrase5", "一二三四五六"),
        ];
        for (key, value) in bad {
            assert!(refused(key, value), "{key} = {value:?}");
        }
    }

    #[test]
    fn a_thing_can_be_cut() {
        let long = "一二三四五六七八九十一二三四五六七八九十零";
        assert_eq!(
            truncated("thing1", long).as_deref(),
            Some("一二三四五六七八九十一二三四五六七八九…")
        );
        assert_eq!(truncated("thing1", "short"), None);
        assert_eq!(truncated("character_string1", &"1".repeat(40)), None);
        assert_eq!(
            truncated("thing1", "an order with a long name").as_deref(),
            Some("an order with a lon…")
        );
        assert_eq!(
            truncated("thing1", "twenty letters are a few").as_deref(),
            Some("twenty letters are…"),
            "no blank before the mark"
        );
    }

    #[test]
    fn the_rule_is_told() {
        assert_eq!(
            check("phrase5", "shipped").unwrap_err().to_string(),
            "must be at most 5 Chinese characters"
        );
        assert_eq!(
            check("thing1", "").unwrap_err().to_string(),
            "must not be empty: blanks and invisible characters do not count"
        );
    }

    proptest! {
        #[test]
        fn no_value_makes_the_rules_panic(key in "[a-z_]{0,20}[0-9]{0,2}", value in ".{0,40}") {
            let _ = check(&key, &value);
        }

        #[test]
        fn what_is_cut_fits(value in "\\PC{0,60}") {
            if let Some(cut) = truncated("thing1", &value) {
                prop_assert!(Kind::Thing.accepts(&cut), "{cut}");
            }
        }

        #[test]
        fn things_are_limited_by_length_alone(value in "[\\x21-\\x7e\u{4e00}-\u{9fff}]{1,30}") {
            prop_assert_eq!(check("thing1", &value).is_ok(), value.encode_utf16().count() <= 20);
        }
    }
}
