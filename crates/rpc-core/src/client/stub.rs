//! What both faces of the client do around a call: encode, decode, reckon the deadline.

use std::time::{Duration, Instant};

use rpc_proto::client::Request;
use rpc_proto::wire::{Reply, media_type};
use rpc_proto::{CallError, Headers, ShortString, deadline_after};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ClientOptions;
use crate::codec::{self, Codec};

/// How a client calls.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) options: ClientOptions,
}

impl Stub {
    pub(crate) const fn new(options: ClientOptions) -> Self {
        Self { options }
    }

    /// When a call must have ended that begins now and may take this long.
    pub(crate) fn deadline(
        &self,
        now: Instant,
        timeout: Option<Duration>,
        until: Option<Instant>,
    ) -> Instant {
        let timeout = timeout.unwrap_or(self.options.timeout);
        let deadline = deadline_after(now, timeout.min(self.options.limits.max_timeout));
        until.map_or(deadline, |until| until.min(deadline))
    }

    /// Whether this method may run twice.
    pub(crate) fn is_idempotent(&self, method: Option<&ShortString>) -> bool {
        const DEFAULT: ShortString = ShortString::from_static("");
        let methods = &self.options.idempotent;
        !methods.is_empty() && methods.contains(method.unwrap_or(&DEFAULT))
    }

    pub(crate) fn encode<Req: Serialize + ?Sized>(
        &self,
        method: &str,
        arguments: &Req,
    ) -> Result<Request, CallError> {
        let unencodable = |why: String| CallError::RequestUnencodable(why);
        let codec = self
            .options
            .codec
            .as_deref()
            .ok_or_else(|| unencodable(NO_CODEC.into()))?;
        let name = ShortString::new(method)
            .map_err(|error| unencodable(format!("the method name has {error}")))?;
        let body =
            codec::encode(codec, arguments).map_err(|error| unencodable(error.to_string()))?;
        Ok(Request {
            body,
            content_type: Some(codec.content_type()),
            delivery_mode: self.options.delivery_mode,
            headers: Headers::new(),
            method: Some(name).filter(|name| !name.is_empty()),
        })
    }

    pub(crate) fn decode<Resp: DeserializeOwned>(&self, reply: &Reply) -> Result<Resp, CallError> {
        let undecodable = |why: String| CallError::ReplyUndecodable(why);
        let codec = self
            .reply_codec(reply.content_type.as_ref())
            .ok_or_else(|| {
                undecodable(format!(
                    "no codec for {:?}",
                    reply.content_type.clone().unwrap_or_default()
                ))
            })?;
        codec::decode(codec, &reply.body).map_err(|error| undecodable(error.to_string()))
    }

    /// A plain peer may leave the content type out, and then answers in that of the request.
    fn reply_codec(&self, content_type: Option<&ShortString>) -> Option<&dyn Codec> {
        let own = self.options.codec.as_deref();
        match content_type {
            None => own,
            Some(given) => own
                .filter(|own| own.content_type() == *media_type(given.as_str()))
                .or_else(|| self.options.codecs.find(Some(given)).map(|codec| &**codec)),
        }
    }
}

const NO_CODEC: &str = "no codec is built in: enable a codec feature, or give the client one";
