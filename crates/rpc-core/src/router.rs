//! A service made of named methods with typed handlers.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use rpc_proto::server::{Request, Response};
use rpc_proto::wire::is_reserved;
use rpc_proto::{Reason, ShortString, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Context;
use crate::codec::{self, Codec, Codecs};
use crate::service::{Answer, Service, Work};

/// Named methods, each a function from one serde type to another.
///
/// The request's content type names the codec; the answer goes back in the same one. An unknown
/// method, an unknown content type or a body that does not decode is answered with a typed error,
/// and the handler does not run.
///
/// ```
/// use rpc_core::{Router, Status};
///
/// let router = Router::new()
///     .handle("double", |n: u64| n.checked_mul(2).ok_or_else(|| Status::out_of_range("too big")))
///     .handle_async("greet", |name: String| async move { Ok(format!("hello, {name}")) })
///     .default_method("double");
/// # let _ = router;
/// ```
#[derive(Default)]
pub struct Router {
    codecs: Codecs,
    default_method: Option<ShortString>,
    methods: HashMap<ShortString, Handler>,
}

type Handler = Box<dyn Fn(Arc<dyn Codec>, Request) -> Work + Send + Sync>;

impl Router {
    /// No methods yet, and all codecs that are built in.
    #[must_use]
    pub fn new() -> Self {
        Self {
            codecs: Codecs::built_in(),
            ..Self::default()
        }
    }

    /// Adds a method that answers at once.
    ///
    /// It runs where the request was received, so it should take microseconds; for more, use
    /// [`handle_blocking`](Self::handle_blocking).
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like; and when
    /// there is a method of this name already.
    #[must_use]
    pub fn handle<Req, Resp>(
        self,
        method: &'static str,
        handler: impl Fn(Req) -> Result<Resp, Status> + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned,
        Resp: Serialize,
    {
        self.handle_with(method, move |_, arguments| handler(arguments))
    }

    /// As [`handle`](Self::handle), with what is known of the request besides its arguments.
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like; and when
    /// there is a method of this name already.
    #[must_use]
    pub fn handle_with<Req, Resp>(
        self,
        method: &'static str,
        handler: impl Fn(Context, Req) -> Result<Resp, Status> + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned,
        Resp: Serialize,
    {
        self.add(method, move |codec, request| {
            Work::Ready(answer(method, &*codec, &request, &handler))
        })
    }

    /// Adds a method that computes or waits for a while, in a thread that it may keep busy.
    ///
    /// It cannot be stopped, so one that may take long is better added by
    /// [`handle_blocking_with`](Self::handle_blocking_with), and looks at its context.
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like; and when
    /// there is a method of this name already.
    #[must_use]
    pub fn handle_blocking<Req, Resp>(
        self,
        method: &'static str,
        handler: impl Fn(Req) -> Result<Resp, Status> + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned,
        Resp: Serialize,
    {
        self.handle_blocking_with(method, move |_, arguments| handler(arguments))
    }

    /// As [`handle_blocking`](Self::handle_blocking), with what is known of the request besides its
    /// arguments.
    ///
    /// ```
    /// use rpc_core::{Context, Router, Status};
    ///
    /// let router = Router::new().handle_blocking_with("sum", |context: Context, n: u64| {
    ///     let mut sum = 0_u64;
    ///     for step in 0..n {
    ///         if step % 1024 == 0 && context.is_cancelled() {
    ///             // Nobody reads it: the caller has given up, or is told that the deadline passed.
    ///             return Err(Status::cancelled("stopped"));
    ///         }
    ///         sum = sum.wrapping_add(step);
    ///     }
    ///     Ok(sum)
    /// });
    /// # let _ = router;
    /// ```
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like; and when
    /// there is a method of this name already.
    #[must_use]
    pub fn handle_blocking_with<Req, Resp>(
        self,
        method: &'static str,
        handler: impl Fn(Context, Req) -> Result<Resp, Status> + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned,
        Resp: Serialize,
    {
        let handler = Arc::new(handler);
        self.add(method, move |codec, request| {
            let handler = Arc::clone(&handler);
            Work::Blocking(Box::new(move || {
                answer(method, &*codec, &request, &*handler)
            }))
        })
    }

    /// Adds a method that awaits. It is dropped where it awaits when nobody waits for its answer any
    /// more.
    ///
    /// On the blocking face the future is driven by the worker's thread, without a runtime unless
    /// the server was given one. A handler that awaits tokio's timers, sockets or tasks panics there
    /// ("there is no reactor running"), and its caller reads INTERNAL, unless the server was started
    /// with `blocking::Server::connect_with_runtime` or `start_with_runtime`.
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like; and when
    /// there is a method of this name already.
    #[must_use]
    pub fn handle_async<Req, Resp, Fut>(
        self,
        method: &'static str,
        handler: impl Fn(Req) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize,
        Fut: Future<Output = Result<Resp, Status>> + Send + 'static,
    {
        self.handle_async_with(method, move |_, arguments| handler(arguments))
    }

    /// As [`handle_async`](Self::handle_async), with what is known of the request besides its
    /// arguments.
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like; and when
    /// there is a method of this name already.
    #[must_use]
    pub fn handle_async_with<Req, Resp, Fut>(
        self,
        method: &'static str,
        handler: impl Fn(Context, Req) -> Fut + Send + Sync + 'static,
    ) -> Self
    where
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize,
        Fut: Future<Output = Result<Resp, Status>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.add(method, move |codec, request| {
            match decode(method, &*codec, &request) {
                Ok(arguments) => {
                    let (context, handler) = (Context::of(&request), Arc::clone(&handler));
                    // Not even called before its time: what is never polled has not begun.
                    Work::Async(Box::pin(async move {
                        let result = handler(context, arguments).await;
                        encode(&*codec, &result.map_err(Status::of_handler)?)
                    }))
                }
                Err(status) => Work::Ready(Err(status)),
            }
        })
    }

    /// Names the method of requests that name none, as those of plain scripts do.
    ///
    /// # Panics
    ///
    /// When the name is over 255 bytes, or one of the framework's own: `rpc.reply` and the like.
    #[must_use]
    pub fn default_method(mut self, method: &'static str) -> Self {
        self.default_method = Some(method_name(method));
        self
    }

    /// Adds a codec, in place of one of the same content type.
    #[must_use]
    pub fn with_codec(mut self, codec: impl Codec) -> Self {
        self.codecs = self.codecs.with(codec);
        self
    }

    /// Sets which codecs are understood.
    #[must_use]
    pub fn with_codecs(mut self, codecs: Codecs) -> Self {
        self.codecs = codecs;
        self
    }

    fn add(
        mut self,
        method: &'static str,
        handler: impl Fn(Arc<dyn Codec>, Request) -> Work + Send + Sync + 'static,
    ) -> Self {
        let former = self.methods.insert(method_name(method), Box::new(handler));
        assert!(former.is_none(), "there is a method {method:?} already");
        self
    }

    fn find(&self, request: &Request) -> Result<(&Handler, &Arc<dyn Codec>), Status> {
        let method = request.method.as_ref().filter(|method| !method.is_empty());
        let Some(method) = method.or(self.default_method.as_ref()) else {
            let said = "the request names no method, and the service has no default one";
            return Err(Status::framework(Reason::UnknownMethod, said));
        };
        let handler = self.methods.get(method).ok_or_else(|| {
            let said = format!("no method {method:?}; there are {}", self.names());
            Status::framework(Reason::UnknownMethod, said)
        })?;
        let codec = self
            .codecs
            .find(request.content_type.as_ref())
            .ok_or_else(|| {
                let known = self.codecs.content_types().collect::<Vec<_>>().join(", ");
                let got = request.content_type.clone().unwrap_or_default();
                let said = format!("no codec for {got:?}; there are {known}");
                Status::framework(Reason::UnknownContentType, said)
            })?;
        Ok((handler, codec))
    }

    /// The methods there are, as far as they fit into an error.
    fn names(&self) -> String {
        let mut names: Vec<&str> = self.methods.keys().map(ShortString::as_str).collect();
        names.sort_unstable();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let named = names.join(", ");
        match (named.is_empty(), more) {
            (true, _) => "none".into(),
            (_, 0) => named,
            _ => format!("{named}, and {more} more"),
        }
    }
}

/// How many methods an error names.
const NAMED: usize = 10;

impl Service for Router {
    fn call(&self, request: Request) -> Work {
        match self.find(&request) {
            Ok((handler, codec)) => handler(Arc::clone(codec), request),
            Err(status) => Work::Ready(Err(status)),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("methods", &self.methods.keys())
            .field("default_method", &self.default_method)
            .field("codecs", &self.codecs)
            .finish()
    }
}

/// A name that requests can carry.
fn method_name(method: &'static str) -> ShortString {
    let name = ShortString::from_static(method);
    assert!(
        !is_reserved(&name),
        "{name:?} is a word of the framework, and no request of that name would be served"
    );
    name
}

fn answer<Req: DeserializeOwned, Resp: Serialize>(
    method: &str,
    codec: &dyn Codec,
    request: &Request,
    handler: &impl Fn(Context, Req) -> Result<Resp, Status>,
) -> Answer {
    let arguments = decode(method, codec, request)?;
    let result = handler(Context::of(request), arguments);
    encode(codec, &result.map_err(Status::of_handler)?)
}

fn decode<Req: DeserializeOwned>(
    method: &str,
    codec: &dyn Codec,
    request: &Request,
) -> Result<Req, Status> {
    codec::decode(codec, &request.body).map_err(|error| {
        let said = format!("the arguments of `{method}` do not decode: {error}");
        Status::framework(Reason::RequestUndecodable, said)
    })
}

fn encode<Resp: Serialize>(codec: &dyn Codec, result: &Resp) -> Answer {
    let body = codec::encode(codec, result)
        .map_err(|error| Status::framework(Reason::ReplyUnencodable, error.to_string()))?;
    Ok(Response {
        body,
        content_type: Some(codec.content_type()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "rpc.cancel")]
    fn a_word_of_the_framework_names_no_method() {
        let _ = Router::new().handle("rpc.cancel", |n: u64| Ok(n));
    }

    #[test]
    #[should_panic(expected = "\"double\" already")]
    fn a_name_stands_for_one_method() {
        let router = Router::new().handle("double", |n: u64| Ok(n * 2));
        let _ = router.handle_blocking("double", |n: u64| Ok(n + n));
    }

    fn refused(router: &Router, method: &str, body: &'static str) -> Status {
        let due = std::time::Instant::now() + std::time::Duration::from_secs(1);
        let mut request = Request::new(body, due);
        request.method = Some(ShortString::new(method).unwrap());
        match router.call(request) {
            Work::Ready(answer) => answer.unwrap_err(),
            _ => panic!("it is refused at once"),
        }
    }

    #[test]
    fn who_asks_for_an_unknown_method_reads_which_there_are() {
        assert!(
            refused(&Router::new(), "x", "")
                .message()
                .ends_with("there are none")
        );
        let router = Router::new()
            .handle("b", |n: u64| Ok(n))
            .handle("a", |n: u64| Ok(n));
        let status = refused(&router, "c", "");
        assert_eq!(status.message(), "no method \"c\"; there are a, b");
        const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        let router = NAMES.into_iter().fold(Router::new(), |router, name| {
            router.handle(name, |n: u64| Ok(n))
        });
        let status = refused(&router, "x", "");
        assert!(status.message().ends_with("i, j, and 2 more"), "{status}");
    }

    #[cfg(any(feature = "json", feature = "text"))]
    #[test]
    fn arguments_that_do_not_decode_are_told_with_their_method() {
        let router = Router::new().handle("double", |n: u64| Ok(n * 2));
        let status = refused(&router, "double", "two");
        let said = "the arguments of `double` do not decode: ";
        assert!(status.message().starts_with(said), "{status}");
    }

    #[test]
    #[should_panic(expected = "rpc.reply")]
    fn a_word_of_the_framework_is_no_default_method() {
        let _ = Router::new().default_method("rpc.reply");
    }
}
