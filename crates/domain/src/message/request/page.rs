//! Pages of a mini-program: the valid values of `page` and `miniprogram.pagepath`.

/// What is wrong with a page, as a sentence that names a valid value; `None`: the page may be valid.
///
/// WeChat answers 41030 or 40165 for a page that the released version does not have; on some channels the grant is
/// spent by then. This check refuses values that can never be a page.
pub(super) fn fault(page: &str) -> Option<&'static str> {
    const EXAMPLE: &str =
        "must be a page of the mini-program with its parameters, such as pages/order/detail?id=1";
    const BLANKS: &str = "must have no blanks at its ends or beside `=` and `&`, such as \
                          pages/order/detail?id=1&from=card: percent-encode a blank within a value as %20";
    let (path, query) = page.split_once('?').unwrap_or((page, ""));
    let is_odd = |c: char| c.is_whitespace() || "()[]{}<>\"'`\\|^*:;,=&#".contains(c);
    if path.is_empty() || path.contains("//") || path.chars().any(is_odd) {
        return Some(EXAMPLE);
    }
    let has_stray_blank = query
        .split(['=', '&', '?'])
        .any(|part| part.trim().len() != part.len());
    has_stray_blank.then_some(BLANKS)
}

/// The page without leading slashes; `None`: the page has no leading slash. WeChat accepts no leading slash, and the
/// page is the same without the slash.
pub(super) fn without_slash(page: &str) -> Option<&str> {
    let bare = page.trim_start_matches('/');
    (page.starts_with('/') && !page.starts_with("//") && !bare.is_empty()).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_a_page_passes() {
        for page in [
            "index",
            "index?foo=bar",
            "pages/order/detail?id=20240917001&from=card",
            "pages/订单/detail",
            "packageA/pages/a-b_c.d/index?q=%E4%BD%A0+x&empty=&url=https%3A%2F%2Fa.example",
            "pages/index?scene=a=b",
            "pages/index?name=John Doe",
        ] {
            assert_eq!(fault(page), None, "{page}");
        }
    }

    #[test]
    fn what_cannot_be_a_page_is_refused() {
        for page in [
            "https://shop.example/order",
            "(page)",
            "<page>",
            "${page}",
            "?id=1",
            " pages/index",
            "pages/index ",
            "pages/index?id = 1",
            "pages/index?id= 1",
            "pages/index?id=1 &x=2",
            "pages/index?id=1 ",
            "pages//index",
            "pages/index&id=1",
            "{\"page\":1}",
        ] {
            assert!(fault(page).is_some(), "{page}");
        }
    }

    #[test]
    fn a_leading_slash_is_cut() {
        assert_eq!(without_slash("/pages/index?id=1"), Some("pages/index?id=1"));
        for page in ["pages/index", "/", "//host/pages"] {
            assert_eq!(without_slash(page), None, "{page}");
        }
    }
}
