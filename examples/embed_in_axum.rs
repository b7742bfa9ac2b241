//! A web service that answers by calling another service: the client sits in axum's state, and the
//! code of a failed call becomes the status of the response.
//!
//! It makes one request to itself and ends.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use rpc_core::{CallError, Client, ClientOptions, Code, QueueSpec, Router, Server};
use rpc_core::{ServerOptions, ShortString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transport_memory::MemoryTransport;

type Squares = Client<Arc<MemoryTransport>>;

async fn square(
    State(squares): State<Squares>,
    Path(n): Path<u64>,
) -> Result<String, (StatusCode, String)> {
    let square: u64 = squares
        .call("square", &n)
        .await
        .map_err(|error| respond(&error))?;
    Ok(square.to_string())
}

fn respond(error: &CallError) -> (StatusCode, String) {
    let status = match error.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    (status, error.to_string())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = ShortString::from_static("squares");
    let transport = Arc::new(MemoryTransport::new());
    let router = Router::new().handle("square", |n: u64| Ok(n.wrapping_mul(n)));
    let spec = QueueSpec::durable(queue.clone());
    let _server = Server::start(Arc::clone(&transport), router, ServerOptions::new(spec)).await?;
    let squares = Client::new(transport, ClientOptions::new(queue)).await?;

    let web = axum::Router::new()
        .route("/square/{n}", get(square))
        .with_state(squares);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, web).await });

    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /square/12 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    println!("{}\n{body}", head.lines().next().unwrap_or_default());
    anyhow::ensure!(body == "144", "12 squared is 144, and not {body:?}");
    Ok(())
}
