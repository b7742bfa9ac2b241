//! Messages as amiquip writes and reads them, in both directions.

use std::mem;

use amiquip::{AmqpProperties, AmqpValue, FieldTable};
use bytes::Bytes;
use rpc_core::{DeliveryMode, Expiration, HeaderValue, Headers, Message, ShortString};

/// The number of a message that outlives a restart of the broker.
const PERSISTENT: u8 = 2;

/// Everything of a message but its body.
pub(crate) fn properties_of(message: &Message) -> AmqpProperties {
    let mut properties = AmqpProperties::default();
    if let Some(text) = &message.content_type {
        properties = properties.with_content_type(text.as_str().to_owned());
    }
    if let Some(text) = &message.correlation_id {
        properties = properties.with_correlation_id(text.as_str().to_owned());
    }
    // Transient is what the broker assumes, so it need not travel.
    if message.delivery_mode == DeliveryMode::Persistent {
        properties = properties.with_delivery_mode(PERSISTENT);
    }
    if let Some(expiration) = message.expiration {
        properties = properties.with_expiration(expiration.as_millis().to_string());
    }
    if !message.headers.is_empty() {
        properties = properties.with_headers(table_of(&message.headers));
    }
    if let Some(text) = &message.kind {
        properties = properties.with_type_(text.as_str().to_owned());
    }
    if let Some(text) = &message.message_id {
        properties = properties.with_message_id(text.as_str().to_owned());
    }
    if let Some(text) = &message.reply_to {
        properties = properties.with_reply_to(text.as_str().to_owned());
    }
    properties
}

/// Takes the message out of a delivery. What stays behind still acknowledges it.
pub(crate) fn take_message(delivery: &mut amiquip::Delivery) -> Message {
    let properties = mem::take(&mut delivery.properties);
    // The shell may wait long for its acknowledgement, and needs none of these.
    delivery.exchange = String::new();
    delivery.routing_key = String::new();
    Message {
        body: Bytes::from(mem::take(&mut delivery.body)),
        content_type: short(properties.content_type()),
        correlation_id: short(properties.correlation_id()),
        delivery_mode: match properties.delivery_mode() {
            Some(PERSISTENT) => DeliveryMode::Persistent,
            _ => DeliveryMode::Transient,
        },
        expiration: properties
            .expiration()
            .as_deref()
            .and_then(Expiration::parse),
        headers: properties
            .headers()
            .as_ref()
            .map(headers_of)
            .unwrap_or_default(),
        kind: short(properties.type_()),
        message_id: short(properties.message_id()),
        reply_to: short(properties.reply_to()),
    }
}

/// A name from the wire: its length came in one byte, so it always fits.
pub(crate) fn short(text: &Option<String>) -> Option<ShortString> {
    text.as_deref().and_then(|text| ShortString::new(text).ok())
}

fn table_of(headers: &Headers) -> FieldTable {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value_of(value)?)))
        .collect()
}

fn value_of(value: &HeaderValue) -> Option<AmqpValue> {
    match value {
        HeaderValue::Bytes(bytes) => Some(AmqpValue::ByteArray(bytes.to_vec())),
        HeaderValue::Flag(flag) => Some(AmqpValue::Boolean(*flag)),
        HeaderValue::Float(number) => Some(AmqpValue::Double(*number)),
        HeaderValue::Int(number) => Some(AmqpValue::LongLongInt(*number)),
        HeaderValue::Text(text) => Some(AmqpValue::LongString(text.clone())),
        other => {
            tracing::debug!(?other, "header of an unknown type left out");
            None
        }
    }
}

/// What fits our limit, in the order of its names: amiquip keeps a table sorted.
fn headers_of(table: &FieldTable) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in table {
        let Some(value) = header_of(value) else {
            continue;
        };
        // A peer's headers may be larger than ours ever are; the rest of the message still counts.
        if let Err(error) = headers.insert(name, value) {
            tracing::debug!(%error, "header of a delivery left out");
        }
    }
    headers
}

fn header_of(value: &AmqpValue) -> Option<HeaderValue> {
    Some(match value {
        AmqpValue::Boolean(flag) => HeaderValue::Flag(*flag),
        AmqpValue::ShortShortInt(number) => HeaderValue::Int((*number).into()),
        AmqpValue::ShortShortUInt(number) => HeaderValue::Int((*number).into()),
        AmqpValue::ShortInt(number) => HeaderValue::Int((*number).into()),
        AmqpValue::ShortUInt(number) => HeaderValue::Int((*number).into()),
        AmqpValue::LongInt(number) => HeaderValue::Int((*number).into()),
        AmqpValue::LongUInt(number) => HeaderValue::Int((*number).into()),
        AmqpValue::LongLongInt(number) => HeaderValue::Int(*number),
        AmqpValue::Timestamp(seconds) => HeaderValue::Int(i64::try_from(*seconds).ok()?),
        AmqpValue::Float(number) => HeaderValue::Float((*number).into()),
        AmqpValue::Double(number) => HeaderValue::Float(*number),
        AmqpValue::LongString(text) => HeaderValue::Text(text.clone()),
        AmqpValue::ByteArray(bytes) => HeaderValue::Bytes(Bytes::from(bytes.clone())),
        AmqpValue::DecimalValue(_)
        | AmqpValue::FieldArray(_)
        | AmqpValue::FieldTable(_)
        | AmqpValue::Void => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_of_the_wire_is_a_number_and_what_nests_is_left_out() {
        let table: FieldTable = [
            ("a", AmqpValue::ShortShortInt(-1)),
            ("b", AmqpValue::ShortShortUInt(255)),
            ("c", AmqpValue::LongUInt(u32::MAX)),
            ("d", AmqpValue::LongLongInt(i64::MIN)),
            ("nested", AmqpValue::FieldTable(FieldTable::new())),
            ("list", AmqpValue::FieldArray(vec![AmqpValue::Void])),
            ("raw", AmqpValue::ByteArray(vec![0xff])),
            ("readable", AmqpValue::ByteArray(b"text".to_vec())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let headers = headers_of(&table);
        assert_eq!(headers.get("a"), Some(&HeaderValue::Int(-1)));
        assert_eq!(headers.get("b"), Some(&HeaderValue::Int(255)));
        assert_eq!(headers.get("c"), Some(&HeaderValue::Int(u32::MAX.into())));
        assert_eq!(headers.get("d"), Some(&HeaderValue::Int(i64::MIN)));
        assert_eq!(
            headers.get("raw"),
            Some(&HeaderValue::Bytes(Bytes::from_static(&[0xff])))
        );
        assert_eq!(
            headers.get("readable"),
            Some(&HeaderValue::Bytes(Bytes::from_static(b"text")))
        );
        assert_eq!(headers.iter().count(), 6);
    }

    #[test]
    fn headers_over_our_limit_cost_the_header_and_not_the_message() {
        let table: FieldTable = [
            ("big", AmqpValue::LongString("x".repeat(20_000))),
            ("small", AmqpValue::Boolean(true)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let headers = headers_of(&table);
        assert_eq!(headers.get("big"), None);
        assert_eq!(headers.get("small"), Some(&HeaderValue::Flag(true)));
    }
}
