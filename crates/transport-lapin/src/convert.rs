//! Messages between our types and AMQP's.

use std::time::Instant;

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, message};
use rpc_core::{
    AckToken, Delivery, DeliveryMode, Expiration, HeaderValue, Headers, Message, ShortString,
};

type WireString = lapin::types::ShortString;

/// Our name on the wire.
///
/// lapin panics on more than 255 bytes, which ours cannot have.
pub(crate) fn short(text: &ShortString) -> WireString {
    WireString::from(text.as_str())
}

/// A name from the wire. A longer one than 255 bytes does not fit the frame it came in.
pub(crate) fn from_short(text: &WireString) -> Option<ShortString> {
    ShortString::new(text.as_str()).ok()
}

/// The properties of a message to publish.
pub(crate) fn properties(message: &Message) -> BasicProperties {
    let mut properties =
        BasicProperties::default().with_delivery_mode(match message.delivery_mode {
            DeliveryMode::Persistent => 2,
            _ => 1,
        });
    if let Some(text) = &message.content_type {
        properties = properties.with_content_type(short(text));
    }
    if let Some(text) = &message.correlation_id {
        properties = properties.with_correlation_id(short(text));
    }
    if let Some(expiration) = message.expiration {
        properties = properties.with_expiration(expiration.as_millis().to_string().into());
    }
    if let Some(text) = &message.kind {
        properties = properties.with_type(short(text));
    }
    if let Some(text) = &message.message_id {
        properties = properties.with_message_id(short(text));
    }
    if let Some(text) = &message.reply_to {
        properties = properties.with_reply_to(short(text));
    }
    if !message.headers.is_empty() {
        properties = properties.with_headers(table(&message.headers));
    }
    properties
}

/// What the header frame of `message` takes at most, in bytes.
pub(crate) fn header_len(message: &Message) -> usize {
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| {
            2 + name.as_str().len()
                + match value {
                    HeaderValue::Bytes(bytes) => 4 + bytes.len(),
                    HeaderValue::Text(text) => 4 + text.len(),
                    _ => 8,
                }
        })
        .sum();
    let texts = [
        &message.content_type,
        &message.correlation_id,
        &message.kind,
        &message.message_id,
        &message.reply_to,
    ];
    let texts: usize = texts
        .into_iter()
        .flatten()
        .map(|text| 1 + text.as_str().len())
        .sum();
    // Frame, class, body size, flags, the length of the table, mode and expiration.
    64 + texts + headers
}

/// A delivery as our consumers receive it.
pub(crate) fn delivery(
    delivery: message::Delivery,
    received_at: Instant,
    token: Option<AckToken>,
) -> Delivery {
    let properties = &delivery.properties;
    let name = |text: &Option<WireString>| text.as_ref().and_then(from_short);
    let mut message = Message::new(Bytes::from(delivery.data));
    message.content_type = name(properties.content_type());
    message.correlation_id = name(properties.correlation_id());
    message.delivery_mode = match properties.delivery_mode() {
        Some(2) => DeliveryMode::Persistent,
        _ => DeliveryMode::Transient,
    };
    message.expiration = properties
        .expiration()
        .as_ref()
        .and_then(|text| Expiration::parse(text.as_str()));
    message.kind = name(properties.kind());
    message.message_id = name(properties.message_id());
    message.reply_to = name(properties.reply_to());
    if let Some(table) = properties.headers() {
        message.headers = headers(table);
    }
    Delivery {
        message,
        received_at,
        redelivered: delivery.redelivered,
        token,
    }
}

fn table(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers.iter() {
        let value = match value {
            HeaderValue::Bytes(bytes) => AMQPValue::ByteArray((&**bytes).into()),
            HeaderValue::Flag(flag) => AMQPValue::Boolean(*flag),
            HeaderValue::Float(float) => AMQPValue::Double(*float),
            HeaderValue::Int(int) => AMQPValue::LongLongInt(*int),
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            // A kind of value that is newer than this crate.
            _ => continue,
        };
        table.insert(short(name), value);
    }
    table
}

/// What does not fit is left out, like what is nested: a header is never worth a message.
fn headers(table: &FieldTable) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in table.inner() {
        if let Some(value) = header_value(value) {
            let _ = headers.insert(name.as_str(), value);
        }
    }
    headers
}

fn header_value(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::Boolean(flag) => HeaderValue::Flag(*flag),
        AMQPValue::ShortShortInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::ShortShortUInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::ShortInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::ShortUInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::LongInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::LongUInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::LongLongInt(int) => HeaderValue::Int(*int),
        AMQPValue::Timestamp(seconds) => HeaderValue::Int(i64::try_from(*seconds).ok()?),
        AMQPValue::Float(float) => HeaderValue::Float((*float).into()),
        AMQPValue::Double(float) => HeaderValue::Float(*float),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(text: &'static str) -> Option<ShortString> {
        Some(ShortString::from_static(text))
    }

    #[test]
    fn a_message_survives_the_way_there_and_back() {
        let mut sent = Message::new("body");
        sent.content_type = name("text/plain");
        sent.correlation_id = name("c");
        sent.delivery_mode = DeliveryMode::Persistent;
        sent.expiration = Some(Expiration::after(Duration::from_millis(250)));
        sent.kind = name("k");
        sent.message_id = name("m");
        sent.reply_to = name("r");
        for (key, value) in [
            ("bytes", HeaderValue::Bytes(Bytes::from_static(b"\xff"))),
            ("flag", HeaderValue::Flag(true)),
            ("float", HeaderValue::Float(0.5)),
            ("int", HeaderValue::Int(i64::MIN)),
            ("text", HeaderValue::Text("é".repeat(200))),
        ] {
            sent.headers.insert(key, value).unwrap();
        }
        let mut raw = message::Delivery::mock(1, "".into(), "q".into(), true, b"body".to_vec());
        raw.properties = properties(&sent);
        let got = delivery(raw, Instant::now(), None);
        assert_eq!(got.message, sent);
        assert!(got.redelivered);
    }

    #[test]
    fn all_integers_are_one_and_what_is_nested_is_left_out() {
        let mut table = FieldTable::default();
        table.insert("a".into(), AMQPValue::ShortShortUInt(7));
        table.insert("b".into(), AMQPValue::LongInt(-7));
        table.insert("c".into(), AMQPValue::LongString(vec![0xff].into()));
        table.insert("d".into(), AMQPValue::FieldTable(FieldTable::default()));
        table.insert("e".into(), AMQPValue::Timestamp(u64::MAX));
        let headers = headers(&table);
        assert_eq!(headers.get("a"), Some(&HeaderValue::Int(7)));
        assert_eq!(headers.get("b"), Some(&HeaderValue::Int(-7)));
        assert_eq!(
            headers.get("c"),
            Some(&HeaderValue::Bytes(Bytes::from_static(b"\xff")))
        );
        assert_eq!(headers.iter().count(), 3);
    }
}
