//! Takes secrets out of a client library's text.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::AmqpUrl;

const MASK: &str = "***";

/// `text` without the password of `url`, in whichever spelling, and without the password of any
/// other URL in it.
///
/// Both client libraries put whole URLs into their errors.
#[must_use]
pub fn scrub(text: &str, url: &AmqpUrl) -> String {
    let mut clean = mask_user_info(text);
    let password = url.expose_password();
    if password.is_empty() {
        return clean;
    }
    let debug = format!("{password:?}");
    let encoded = utf8_percent_encode(password, NON_ALPHANUMERIC).to_string();
    let mut spellings = [
        password.to_owned(),
        debug.trim_matches('"').to_owned(),
        password.escape_debug().to_string(),
        url.expose_encoded_password().to_owned(),
        encoded.to_ascii_lowercase(),
        encoded,
    ];
    // Longest first: a spelling that contains another one would otherwise be left half.
    spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    for spelling in spellings.iter().filter(|spelling| !spelling.is_empty()) {
        // A mask holds no password, unless the password is itself made of asterisks.
        if spelling.bytes().any(|byte| byte != b'*') {
            clean = clean.replace(spelling.as_str(), MASK);
        }
    }
    clean
}

/// Masks `pass` in each `scheme://user:pass@`.
fn mask_user_info(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        let end = after
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>')
            })
            .unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@') {
            Some(at) => {
                let user = authority[..at].split(':').next().unwrap_or_default();
                clean.push_str(user);
                if user.len() < at {
                    clean.push(':');
                    clean.push_str(MASK);
                }
                clean.push_str(&authority[at..]);
            }
            None => clean.push_str(authority),
        }
        rest = &after[end..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_password_goes() {
        let url: AmqpUrl = "amqp://me:s%2fc%C3%A9%22t@host/v".parse().unwrap();
        assert_eq!(url.expose_password(), "s/cé\"t");
        for spelling in [
            "s/cé\"t",
            "s/cé\\\"t",
            "s%2fc%C3%A9%22t",
            "s%2Fc%C3%A9%22t",
            "s%2fc%c3%a9%22t",
        ] {
            let text = format!("cannot open ({spelling}): no");
            assert_eq!(scrub(&text, &url), "cannot open (***): no", "{spelling}");
        }
    }

    #[test]
    fn the_password_of_any_url_goes() {
        let url: AmqpUrl = "amqp://host".parse().unwrap();
        assert_eq!(
            scrub("at amqp://a:b:c@d@h:1/v and http://u@h/ and x://y", &url),
            "at amqp://a:***@h:1/v and http://u@h/ and x://y"
        );
    }
}
