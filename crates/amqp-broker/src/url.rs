//! Where the broker is and who we are to it; the password never shows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What needs no encoding in the parts of a URL that are shown.
const SHOWN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The heartbeat when the URL has none: a dead peer is noticed within twice of it.
const DEFAULT_HEARTBEAT: u16 = 10;
/// RabbitMQ refuses a smaller one from 4.1 on.
const SMALLEST_FRAME_MAX: u32 = 8192;

/// The URL of a broker: `amqp://user:password@host:port/vhost?heartbeat=10`.
///
/// User and password default to `guest`, the port to 5672 (`amqps`: 5671), the virtual host to `/`.
/// All of them may be percent-encoded, and must be where they hold a delimiter.
///
/// | key | unit | default |
/// |---|---|---|
/// | `heartbeat` | seconds, 1 to 65535 | 10 |
/// | `frame_max` | bytes, 8192 at least | the transport's |
/// | `connection_timeout` | milliseconds | the transport's |
///
/// `Debug` and `Display` print `***` for the password.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUrl {
    tls: bool,
    host: String,
    port: u16,
    vhost: String,
    username: String,
    password: Password,
    query: Query,
}

/// Decoded, and as it was written. No formatting trait is derived.
#[derive(Clone, PartialEq, Eq)]
struct Password {
    plain: String,
    encoded: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Query {
    heartbeat: Option<u16>,
    frame_max: Option<u32>,
    connection_timeout: Option<Duration>,
}

impl AmqpUrl {
    /// The name or the address of the host; an IPv6 address has no brackets here.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The virtual host.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The user.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password, in clear. For the login only.
    #[must_use]
    pub fn expose_password(&self) -> &str {
        &self.password.plain
    }

    /// The password as it was written in the URL.
    pub(crate) fn expose_encoded_password(&self) -> &str {
        &self.password.encoded
    }

    /// Whether the scheme is `amqps`.
    #[must_use]
    pub const fn uses_tls(&self) -> bool {
        self.tls
    }

    /// Seconds between heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> u16 {
        self.query.heartbeat.unwrap_or(DEFAULT_HEARTBEAT)
    }

    /// The largest frame to agree to, in bytes, if the URL says so.
    #[must_use]
    pub const fn frame_max(&self) -> Option<u32> {
        self.query.frame_max
    }

    /// How long a connection attempt may take, if the URL says so.
    #[must_use]
    pub const fn connection_timeout(&self) -> Option<Duration> {
        self.query.connection_timeout
    }
}

impl FromStr for AmqpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = url::Url::parse(text).map_err(|error| {
            // What stands before the delimiter is taken for a host and a port, and the error is about
            // them, which nobody wrote.
            if is_cut_before_host(text) {
                UrlError::StrayAt
            } else {
                UrlError::NotAUrl(error)
            }
        })?;
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(UrlError::Scheme),
        };
        // A password with a delimiter that is not encoded is cut in two, and its second half
        // lands in the path, the query or the fragment, which are shown. Its `@` gives it away.
        let stray = [Some(url.path()), url.query(), url.fragment()];
        if stray.into_iter().flatten().any(|part| part.contains('@')) {
            return Err(UrlError::StrayAt);
        }
        if url.fragment().is_some() {
            return Err(UrlError::Fragment);
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            _ => return Err(UrlError::NoHost),
        };
        let (username, password) = credentials(&url)?;
        Ok(Self {
            tls,
            host,
            port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
            vhost: vhost(url.path())?,
            username,
            password,
            query: query(&url)?,
        })
    }
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let user = utf8_percent_encode(&self.username, SHOWN);
        write!(f, "{scheme}://{user}:***@")?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        let vhost = utf8_percent_encode(&self.vhost, SHOWN);
        write!(f, ":{}/{vhost}", self.port)
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AmqpUrl({self})")
    }
}

/// Why a text is not the URL of a broker. It quotes no part of the text that could be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The value of a key is not one that it takes.
    #[error("`{key}` takes {takes}")]
    #[non_exhaustive]
    BadValue {
        /// The key.
        key: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// It has a fragment.
    #[error("a `#` ends the address of a broker: write %23 for one that belongs to a part of it")]
    Fragment,
    /// It names no host.
    #[error("it names no host")]
    NoHost,
    /// It is no URL at all.
    #[error("not a URL of a broker, such as amqp://user:password@host:5672/vhost")]
    NotAUrl(#[source] url::ParseError),
    /// A part is not UTF-8 when decoded.
    #[error("the {part} is not UTF-8 when percent-decoded")]
    #[non_exhaustive]
    NotUtf8 {
        /// The part.
        part: &'static str,
    },
    /// The scheme is another one.
    #[error("the scheme must be amqp or amqps")]
    Scheme,
    /// There is an `@` after the host.
    #[error(
        "there is an `@` after the host: percent-encode user and password (%2F for `/`, %3F for `?`, \
         %23 for `#`)"
    )]
    StrayAt,
    /// A key is given twice.
    #[error("`{key}` is given twice")]
    #[non_exhaustive]
    Twice {
        /// The key.
        key: &'static str,
    },
    /// A key is not known.
    #[error("unknown key {key}; known are heartbeat, frame_max and connection_timeout")]
    #[non_exhaustive]
    UnknownKey {
        /// The key, if it looks like one.
        key: String,
    },
    /// The virtual host is not one segment of at most 255 bytes.
    #[error(
        "the virtual host must be one path segment of at most 255 bytes: write %2f for a `/` in it"
    )]
    Vhost,
}

/// Whether the part with user and host ends before the `@` that should come in it.
fn is_cut_before_host(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_, rest)| rest.split_once(['/', '?', '#']))
        .is_some_and(|(_, rest)| rest.contains('@'))
}

fn credentials(url: &url::Url) -> Result<(String, Password), UrlError> {
    let username = decode(url.username(), "user")?;
    let password = |encoded: &str| {
        Ok(Password {
            plain: decode(encoded, "password")?,
            encoded: encoded.to_owned(),
        })
    };
    match (username.is_empty(), url.password()) {
        (true, None) => Ok(("guest".to_owned(), password("guest")?)),
        (true, Some(given)) => Ok(("guest".to_owned(), password(given)?)),
        (false, given) => Ok((username, password(given.unwrap_or_default())?)),
    }
}

fn vhost(path: &str) -> Result<String, UrlError> {
    let segment = path.strip_prefix('/').unwrap_or(path);
    if segment.is_empty() {
        return Ok("/".to_owned());
    }
    let vhost = decode(segment, "virtual host")?;
    if segment.contains('/') || vhost.len() > 255 {
        return Err(UrlError::Vhost);
    }
    Ok(vhost)
}

fn query(url: &url::Url) -> Result<Query, UrlError> {
    let mut query = Query::default();
    for (key, value) in url.query_pairs() {
        match &*key {
            "heartbeat" => {
                let heartbeat = value.parse().ok().filter(|seconds| *seconds > 0);
                let takes = "seconds, 1 to 65535";
                set(&mut query.heartbeat, "heartbeat", heartbeat, takes)?;
            }
            "frame_max" => {
                let frame_max = value.parse().ok().filter(|max| *max >= SMALLEST_FRAME_MAX);
                let takes = "bytes, 8192 at least";
                set(&mut query.frame_max, "frame_max", frame_max, takes)?;
            }
            "connection_timeout" => {
                let millis = value.parse::<u32>().ok().filter(|millis| *millis > 0);
                let timeout = millis.map(|millis| Duration::from_millis(millis.into()));
                let takes = "milliseconds, 1 at least";
                let place = &mut query.connection_timeout;
                set(place, "connection_timeout", timeout, takes)?;
            }
            other => return Err(unknown_key(other)),
        }
    }
    Ok(query)
}

fn set<T>(
    place: &mut Option<T>,
    key: &'static str,
    value: Option<T>,
    takes: &'static str,
) -> Result<(), UrlError> {
    let value = value.ok_or(UrlError::BadValue { key, takes })?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(UrlError::Twice { key }),
    }
}

/// Only what looks like a key is quoted, since it may be the rest of a password.
fn unknown_key(key: &str) -> UrlError {
    let looks_like_one = key.len() <= 32
        && key
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    UrlError::UnknownKey {
        key: if looks_like_one {
            format!("`{key}`")
        } else {
            "(not shown)".to_owned()
        },
    }
}

fn decode(encoded: &str, part: &'static str) -> Result<String, UrlError> {
    percent_decode_str(encoded)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| UrlError::NotUtf8 { part })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use proptest::prelude::*;

    use super::*;
    use crate::scrub;

    fn url(text: &str) -> AmqpUrl {
        text.parse().unwrap()
    }

    fn error(text: &str) -> UrlError {
        text.parse::<AmqpUrl>().unwrap_err()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        for text in [
            "amqp://h",
            "amqp://h/",
            "amqp://h/%2f",
            "amqp://guest:guest@h:5672/%2F",
        ] {
            let url = url(text);
            assert_eq!((url.host(), url.port(), url.vhost()), ("h", 5672, "/"));
            assert_eq!((url.username(), url.expose_password()), ("guest", "guest"));
            assert_eq!((url.heartbeat(), url.frame_max()), (10, None));
        }
        assert_eq!(url("amqps://h").port(), 5671);
        assert!(url("amqps://h").uses_tls());
        assert_eq!(url("amqp://me@h").expose_password(), "");
    }

    #[test]
    fn all_parts_are_decoded() {
        let url = url(
            "amqp://u%40x:p%3A%2F%23%3f@[::1]:1/v%2fw%20%C3%A9?heartbeat=3&frame_max=8192&connection_timeout=250",
        );
        assert_eq!((url.username(), url.expose_password()), ("u@x", "p:/#?"));
        assert_eq!((url.host(), url.port(), url.vhost()), ("::1", 1, "v/w é"));
        assert_eq!((url.heartbeat(), url.frame_max()), (3, Some(8192)));
        assert_eq!(url.connection_timeout(), Some(Duration::from_millis(250)));
        assert_eq!(
            format!("{url} {url:?}"),
            "amqp://u%40x:***@[::1]:1/v%2Fw%20%C3%A9 AmqpUrl(amqp://u%40x:***@[::1]:1/v%2Fw%20%C3%A9)"
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        assert_eq!(error("http://h"), UrlError::Scheme);
        assert_eq!(error("amqp:///v"), UrlError::NoHost);
        assert_eq!(error("amqp://h/a/b"), UrlError::Vhost);
        assert_eq!(error("amqp://h/#x"), UrlError::Fragment);
        assert_eq!(
            error("amqp://h/%ff"),
            UrlError::NotUtf8 {
                part: "virtual host"
            }
        );
        assert!(
            error("amqp://h?channel_max=3")
                .to_string()
                .contains("`channel_max`")
        );
        assert!(matches!(
            error("amqp://h?heartbeat=0"),
            UrlError::BadValue {
                key: "heartbeat",
                ..
            }
        ));
        assert!(matches!(
            error("amqp://h?frame_max=4096"),
            UrlError::BadValue {
                key: "frame_max",
                ..
            }
        ));
        assert_eq!(
            error("amqp://h?heartbeat=1&heartbeat=2"),
            UrlError::Twice { key: "heartbeat" }
        );
    }

    #[test]
    fn a_password_that_is_not_encoded_is_told_how_to_be() {
        for text in [
            "amqp://u:pass/word@h",
            "amqp://u:pass?word@h",
            "amqp://u:pass#word@h:5672/%2f",
            "amqp://u:12/word@h",
            "amqps://u/x:word@h",
        ] {
            assert_eq!(error(text), UrlError::StrayAt, "{text}");
        }
        for digits in ["%2F", "%3F", "%23"] {
            assert!(UrlError::StrayAt.to_string().contains(digits));
        }
        // Here the port is wrong, and nothing else.
        for text in ["amqp://h:port/v", "amqp://u:p@h:port", "h:1@/"] {
            assert!(!matches!(error(text), UrlError::StrayAt), "{text}");
        }
    }

    #[test]
    fn half_a_password_in_the_wrong_place_is_not_shown() {
        for text in [
            "amqp://u:12/CANARY@h",
            "amqp://u:12?CANARY@h",
            "amqp://u:12#CANARY@h",
            "amqp://u:CANARY/x@h",
            "CANARY@h",
            "u:CANARY@h",
            "amqp//u:CANARY@h",
        ] {
            let error = error(text);
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_formatting_shows_the_password(
            junk in "[ -~é]{0,12}",
            tail in "[ -~]{0,24}",
            encode in any::<bool>(),
        ) {
            let secret = format!("C4N4RY{junk}");
            let written = if encode {
                utf8_percent_encode(&secret, NON_ALPHANUMERIC).to_string()
            } else {
                secret.clone()
            };
            let text = format!("amqp://user:{written}@host/{tail}");
            let shown = match text.parse::<AmqpUrl>() {
                Ok(url) => {
                    let said = format!("cannot open {text}: {secret} {secret:?}");
                    // A text that is encoded in parts has spellings without number.
                    let said = if encode || !junk.contains('%') { said } else { String::new() };
                    format!("{url} {url:?} {url:#?} {}", scrub(&said, &url))
                }
                Err(error) => {
                    let source = error.source().map(ToString::to_string);
                    format!("{error} {error:?} {source:?}")
                }
            };
            prop_assert!(!shown.contains("C4N4RY"), "{}", shown);
        }
    }
}
