//! Builds the headers of an answer from a list of allowed headers, so that no other content of WeChat's headers comes
//! through.

use super::mask::contains_part;

/// The content types of WeChat's answers. An answer of another type is forwarded as bytes.
const TYPES: [&str; 33] = [
    "application/gzip",
    "application/javascript",
    "application/json",
    "application/msword",
    "application/octet-stream",
    "application/pdf",
    "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/xml",
    "application/zip",
    "audio/amr",
    "audio/mp3",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/speex",
    "audio/wav",
    "audio/x-wav",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/html",
    "text/javascript",
    "text/json",
    "text/plain",
    "text/xml",
    "video/mp4",
    "video/mpeg4",
    "video/quicktime",
];
/// The character sets of texts.
const CHARSETS: [&str; 7] = [
    "gb18030",
    "gb2312",
    "gbk",
    "iso-8859-1",
    "us-ascii",
    "utf-8",
    "utf8",
];
const BYTES: &str = "application/octet-stream";
/// The longest file name.
const LONGEST_NAME: usize = 128;

/// A content type from the list, with the charset.
pub(super) fn content_type(value: &str) -> String {
    let value = value.to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let named = parts.next().unwrap_or_default();
    let Some(known) = TYPES.into_iter().find(|known| *known == named) else {
        return BYTES.to_owned();
    };
    let charset = parts.find_map(|part| {
        let (name, charset) = part.split_once('=')?;
        // WeChat writes both names.
        let name = ["charset", "encoding"]
            .into_iter()
            .find(|known| *known == name.trim())?;
        let charset = charset.trim().trim_matches('"');
        let charset = CHARSETS.into_iter().find(|known| *known == charset)?;
        Some(format!("{known}; {name}={charset}"))
    });
    charset.unwrap_or_else(|| known.to_owned())
}

/// A file disposition, with the file name if the name is plain and contains no part of `secret`.
pub(super) fn content_disposition(value: &str, secret: &str) -> String {
    let name = value.split(';').find_map(|part| {
        let (name, text) = part.split_once('=')?;
        let is_name = name.trim().eq_ignore_ascii_case("filename");
        is_name.then(|| text.trim().trim_matches('"'))
    });
    let is_plain = |name: &&str| {
        let mut bytes = name.bytes();
        let letters = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        letters && (1..=LONGEST_NAME).contains(&name.len())
    };
    match name
        .filter(is_plain)
        .filter(|name| !contains_part(name, secret))
    {
        Some(name) => format!("attachment; filename=\"{name}\""),
        None => "attachment".to_owned(),
    }
}

/// Whether an answer of this type may be WeChat's JSON: WeChat also sends JSON as plain text.
pub(super) fn may_be_json(content_type: Option<&str>) -> bool {
    content_type.is_none_or(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("json") || value.contains("javascript") || value.starts_with("text/plain")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "76_pZt0Qm3vXkYwR8LhN2cBfSg7UeJd5aVoKxI";

    #[test]
    fn a_content_type_is_one_of_the_list() {
        for (value, made) in [
            (
                "application/json; encoding=utf-8",
                "application/json; encoding=utf-8",
            ),
            (
                "Application/JSON;charset=\"UTF-8\"",
                "application/json; charset=utf-8",
            ),
            ("image/jpeg", "image/jpeg"),
            ("text/plain; charset=76_pZt0Qm3", "text/plain"),
            (
                "text/plain; boundary=x; charset=GBK",
                "text/plain; charset=gbk",
            ),
            ("image/76_pZt0Qm3", BYTES),
            ("76_pZt0Qm3vXkYwR8LhN2cBfSg7UeJd5aVoKxI", BYTES),
            ("image/svg+xml", BYTES),
            ("", BYTES),
        ] {
            assert_eq!(content_type(value), made, "{value}");
        }
    }

    #[test]
    fn a_file_has_a_plain_name_or_none() {
        let made = |value: &str| content_disposition(value, TOKEN);
        let named = "attachment; filename=\"M-1_a.jpg\"";
        assert_eq!(made(named), named);
        assert_eq!(made("inline; FileName=M-1_a.jpg"), named);
        for value in [
            format!("attachment; filename=\"{TOKEN}.jpg\""),
            format!("attachment; filename={}", &TOKEN[5..25]),
            format!("attachment; filename={}", TOKEN.to_lowercase()),
            "attachment; filename*=UTF-8''a.jpg".to_owned(),
            "attachment; filename=\"a b.jpg\"".to_owned(),
            "attachment; filename=\"%37%36.jpg\"".to_owned(),
            format!("attachment; filename={}", "a".repeat(129)),
            TOKEN.to_owned(),
            String::new(),
        ] {
            assert_eq!(made(&value), "attachment", "{value}");
        }
    }

    #[test]
    fn a_page_is_no_json() {
        for value in [
            None,
            Some("application/json; encoding=utf-8"),
            Some("text/plain"),
        ] {
            assert!(may_be_json(value), "{value:?}");
        }
        for value in ["text/html", "image/jpeg", "application/octet-stream"] {
            assert!(!may_be_json(Some(value)), "{value}");
        }
    }
}
