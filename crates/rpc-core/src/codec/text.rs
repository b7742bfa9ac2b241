//! Plain text: one number in decimal, or one string. What a script sends without thinking of
//! encodings at all.

use std::fmt::Display;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::ser::{self, Impossible, Serialize};

use super::{Codec, CodecError, Visit};
use crate::ShortString;
use crate::proto::wire;

/// `text/plain`: a number in decimal digits, or a string as it is.
///
/// Integers may stand between ASCII white space and have a minus sign, and nothing else: no plus,
/// no exponent, no separator. One that does not fit 128 bits is offered as a string, so that a type
/// that has a use for it can still take it. Anything with fields has no form here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

impl Codec for Text {
    fn content_type(&self) -> ShortString {
        wire::TEXT
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError> {
        value.serialize(Writer).map(Bytes::from)
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let text = std::str::from_utf8(body).map_err(|_| CodecError::new("not UTF-8"))?;
        visit(&mut <dyn erased_serde::Deserializer<'_>>::erase(Reader(
            text,
        )))
        .map_err(CodecError::new)
    }
}

impl ser::Error for CodecError {
    fn custom<T: Display>(why: T) -> Self {
        Self::new(why)
    }
}

impl de::Error for CodecError {
    fn custom<T: Display>(why: T) -> Self {
        Self::new(why)
    }
}

struct Writer;

/// Methods for the values that are written as they print.
macro_rules! write_plain {
    ($($method:ident($type:ty),)+) => {
        $(fn $method(self, value: $type) -> Result<String, CodecError> {
            Ok(value.to_string())
        })+
    };
}

/// Methods for the values that have no form in plain text.
macro_rules! refuse {
    ($($method:ident($($argument:ty),*) -> $output:ty;)+) => {
        $(fn $method(self, $(_: $argument),*) -> Result<$output, CodecError> {
            Err(CodecError::new("plain text holds one number or one string"))
        })+
    };
}

impl ser::Serializer for Writer {
    type Ok = String;
    type Error = CodecError;
    type SerializeSeq = Impossible<String, CodecError>;
    type SerializeTuple = Impossible<String, CodecError>;
    type SerializeTupleStruct = Impossible<String, CodecError>;
    type SerializeTupleVariant = Impossible<String, CodecError>;
    type SerializeMap = Impossible<String, CodecError>;
    type SerializeStruct = Impossible<String, CodecError>;
    type SerializeStructVariant = Impossible<String, CodecError>;

    write_plain! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_i128(i128), serialize_u128(u128), serialize_f32(f32), serialize_f64(f64),
    }

    refuse! {
        serialize_bytes(&[u8]) -> String;
        serialize_none() -> String;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, CodecError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<String, CodecError> {
        Ok(String::new())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<String, CodecError> {
        Ok(String::new())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<String, CodecError> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<String, CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, CodecError> {
        Err(CodecError::new("plain text holds one number or one string"))
    }
}

struct Reader<'de>(&'de str);

impl<'de> Reader<'de> {
    fn integer<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let text = self.0.trim_ascii();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CodecError::new("expected a number in decimal digits"));
        }
        if negative {
            match text
                .parse::<i128>()
                .map(|number| (number, i64::try_from(number)))
            {
                Ok((_, Ok(number))) => visitor.visit_i64(number),
                Ok((number, Err(_))) => visitor.visit_i128(number),
                Err(_) => visitor.visit_str(text),
            }
        } else {
            match text
                .parse::<u128>()
                .map(|number| (number, u64::try_from(number)))
            {
                Ok((_, Ok(number))) => visitor.visit_u64(number),
                Ok((number, Err(_))) => visitor.visit_u128(number),
                Err(_) => visitor.visit_str(text),
            }
        }
    }

    fn parsed<T: std::str::FromStr>(&self, expected: &str) -> Result<T, CodecError> {
        let text = self.0.trim_ascii();
        text.parse()
            .map_err(|_| CodecError::new(format_args!("expected {expected}")))
    }
}

/// Methods for the types that are read as an integer of any width.
macro_rules! read_integer {
    ($($method:ident,)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            self.integer(visitor)
        })+
    };
}

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = CodecError;

    read_integer! {
        deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64, deserialize_i128,
        deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64, deserialize_u128,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_bool(self.parsed("true or false")?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_f32(self.parsed("a number")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_f64(self.parsed("a number")?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        if !self.0.trim_ascii().is_empty() {
            return Err(CodecError::new("expected nothing"));
        }
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_enum(de::value::StrDeserializer::new(self.0))
    }

    // Whatever else is asked for gets the text, and its visitor says what it expected instead.
    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(decode::<u64>(&Text, b" 30\r\n").unwrap(), 30);
        assert_eq!(decode::<i8>(&Text, b"-3").unwrap(), -3);
        for bad in [
            "", " ", "+3", "3e1", "0x1", "1_000", "3 0", "--3", "-", "\u{663}", "30.0",
        ] {
            assert!(decode::<u64>(&Text, bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(decode::<u8>(&Text, b"256").is_err());
        assert!(decode::<u64>(&Text, b"-3").is_err());
        assert!(decode::<u64>(&Text, &[0xff]).is_err());
    }

    #[test]
    fn what_has_fields_has_no_form() {
        assert!(encode(&Text, &(1, 2)).is_err());
        assert!(encode(&Text, &vec![1]).is_err());
        assert!(decode::<Vec<u8>>(&Text, b"1").is_err());
    }

    proptest! {
        #[test]
        fn every_number_survives(number: u128) {
            prop_assert_eq!(decode::<u128>(&Text, &encode(&Text, &number).unwrap()).unwrap(), number);
        }

        #[test]
        fn every_string_survives(text: String) {
            prop_assert_eq!(decode::<String>(&Text, &encode(&Text, &text).unwrap()).unwrap(), text);
        }
    }
}
