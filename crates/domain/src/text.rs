//! Texts that people write as names and later read in lists, logs and consoles.

/// Whether `c` is invisible and changes how the surrounding text is shown: control characters, line separators and the
/// characters that change the direction of writing (Unicode `Bidi_Control`). A name with such a character can look like
/// another name.
pub fn is_display_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_all_scripts_are_shown_and_what_turns_them_is_not() {
        assert!(!"小店 ☕ é עברית 👩\u{200d}🍳".contains(is_display_control));
        for c in [
            '\0', '\n', '\u{85}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{200f}', '\u{61c}',
            '\u{2028}',
        ] {
            assert!(is_display_control(c), "{c:?}");
        }
    }
}
