//! Decodes the bytes of a file: UTF-8, UTF-16, or GB18030, the encoding that spreadsheet programs use in China.

use encoding_rs::{GB18030, UTF_16BE, UTF_16LE};

use crate::failure::{Failure, USAGE};

/// The decoded content of a file, and its encoding.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DecodedText {
    pub(super) text: String,
    pub(super) encoding: &'static str,
}

/// Decodes the bytes, and removes a byte order mark.
pub(super) fn decode(bytes: Vec<u8>) -> Result<DecodedText, Failure> {
    if let Some(encoding) = wide(&bytes) {
        let (text, is_broken) = encoding.decode_with_bom_removal(&bytes);
        if is_broken {
            return Err(refused(
                "the file is not valid UTF-16: save the file again, as UTF-8",
            ));
        }
        return Ok(DecodedText {
            text: text.into_owned(),
            encoding: "utf-16",
        });
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => {
            let text = match text.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => text,
            };
            return Ok(DecodedText {
                text,
                encoding: "utf-8",
            });
        }
        Err(error) => error.into_bytes(),
    };
    let (text, is_broken) = GB18030.decode_without_bom_handling(&bytes);
    let (line, others) = look(&bytes);
    if is_broken || others {
        return Err(refused(&format!(
            "line {line} is neither UTF-8 nor GB18030: save the file as UTF-8 (`CSV UTF-8` in Excel) and import the file again"
        )));
    }
    Ok(DecodedText {
        text: text.into_owned(),
        encoding: "gb18030",
    })
}

/// Detects UTF-16 by its byte order mark, or by the zero bytes of ASCII letters at the beginning.
fn wide(bytes: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    match bytes {
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        [first, 0, second, 0, ..] if *first != 0 && *second != 0 => Some(UTF_16LE),
        [0, first, 0, second, ..] if *first != 0 && *second != 0 => Some(UTF_16BE),
        _ => None,
    }
}

/// The number of the first line that is not UTF-8, and whether most lines with non-ASCII bytes are UTF-8. If most are,
/// the file is UTF-8 with broken lines, and decoding as GB18030 would give wrong text.
fn look(bytes: &[u8]) -> (usize, bool) {
    let (mut first, mut wrong, mut right) = (1, 0, 0);
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if std::str::from_utf8(line).is_err() {
            first = if wrong == 0 { number } else { first };
            wrong += 1;
        } else if !line.is_ascii() {
            right += 1;
        }
    }
    (first, right > wrong)
}

fn refused(words: &str) -> Failure {
    Failure::new(USAGE, format!("{words}; nothing was sent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "touser,thing1\no1,拿铁咖啡\no2,plain\n";

    #[test]
    fn what_excel_saves_in_china_is_read() {
        let (bytes, _, _) = GB18030.encode(TABLE);
        let read = decode(bytes.into_owned()).unwrap();
        assert_eq!((read.text.as_str(), read.encoding), (TABLE, "gb18030"));
    }

    #[test]
    fn utf_16_is_read_with_and_without_its_mark() {
        for mark in ["\u{feff}", ""] {
            let text = format!("{mark}{TABLE}");
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for bytes in [little, big] {
                let read = decode(bytes).unwrap();
                assert_eq!((read.text.as_str(), read.encoding), (TABLE, "utf-16"));
            }
        }
    }

    #[test]
    fn utf_8_is_read_without_its_mark() {
        let read = decode(format!("\u{feff}{TABLE}").into_bytes()).unwrap();
        assert_eq!((read.text.as_str(), read.encoding), (TABLE, "utf-8"));
    }

    #[test]
    fn utf_8_with_a_broken_line_is_refused_by_its_line() {
        let mut bytes = format!("{TABLE}o3,美式\no4,").into_bytes();
        bytes.extend([0xc3, 0x28, b'\n']);
        let refused = decode(bytes).unwrap_err().message;
        assert!(refused.contains("line 5"), "{refused}");
    }
}
