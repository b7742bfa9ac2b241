//! A service and a client on one in-process broker, on each face, one call at a time.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use rpc_core::proto::client::Request;
use rpc_core::proto::server;
use rpc_core::{
    CallOptions, Client, ClientOptions, DeliveryMode, QueueKind, QueueSpec, Server, ServerOptions,
    Service, ShortString, Work, blocking,
};
use transport_memory::MemoryBroker;

/// Makes so many calls with the async face, on one thread.
///
/// # Errors
///
/// When a call fails or is answered wrongly.
pub fn asynchronous(calls: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let broker = MemoryBroker::new();
        let _server = Server::start(Arc::new(broker.connect()), Echo, server_options()).await?;
        let client = Client::new(Arc::new(broker.connect()), client_options()).await?;
        for _ in 0..calls {
            let reply = client.call_raw(CallOptions::default(), request()).await?;
            ensure!(reply.body == BODY, "an answer is not what was asked");
        }
        Ok(())
    })
}

/// Makes so many calls with the blocking face.
///
/// # Errors
///
/// When a call fails or is answered wrongly.
pub fn blocking(calls: u64) -> Result<()> {
    let broker = MemoryBroker::new();
    let options = server_options();
    let _server = blocking::Server::start(Arc::new(broker.connect()), Echo, options)?;
    let client = blocking::Client::new(Arc::new(broker.connect()), client_options())?;
    for _ in 0..calls {
        let reply = client.call_raw(CallOptions::default(), request())?;
        ensure!(reply.body == BODY, "an answer is not what was asked");
    }
    Ok(())
}

/// Gives back what it gets.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Service for Echo {
    fn call(&self, request: server::Request) -> Work {
        Work::Ready(Ok(server::Response {
            body: request.body,
            content_type: request.content_type,
        }))
    }
}

fn server_options() -> ServerOptions {
    ServerOptions::new(QueueSpec::new(QUEUE, QueueKind::Transient))
}

fn client_options() -> ClientOptions {
    ClientOptions::new(QUEUE)
}

fn request() -> Request {
    Request {
        body: Bytes::from_static(BODY),
        delivery_mode: DeliveryMode::Transient,
        ..Request::default()
    }
}

const QUEUE: ShortString = ShortString::from_static("pure");

const BODY: &[u8] = b"12345678";
