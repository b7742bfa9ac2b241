//! A faulty network: a TCP proxy that can be cut and frozen.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// A proxy in front of the broker. Dropped, it cuts what is left.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    frozen: bool,
    over: bool,
    sockets: Vec<TcpStream>,
}

impl Proxy {
    /// A proxy to the broker of this URL.
    pub(crate) fn to(url: &str) -> Self {
        let url = url::Url::parse(url).expect("it is a URL");
        let host = url.host_str().expect("it names a host").to_owned();
        let target = (host, url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if accepting.over() {
                    return;
                }
                let Ok(broker) = TcpStream::connect((target.0.as_str(), target.1)) else {
                    continue;
                };
                // A pair that cannot be joined is closed by being dropped, which is a fault too.
                let _ = join(&accepting, client, broker);
            }
        });
        Self { address, state }
    }

    /// The URL, by way of this proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).expect("it is a URL");
        url.set_ip_host(self.address.ip()).expect("amqp has hosts");
        url.set_port(Some(self.address.port()))
            .expect("amqp has ports");
        url.into()
    }

    /// Ends all connections, in the middle of whatever they carry.
    pub(crate) fn cut(&self) {
        for socket in self.state.lock().sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Carries nothing any more, and keeps the connections open.
    pub(crate) fn freeze(&self) {
        self.state.lock().frozen = true;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        let mut inner = self.state.lock();
        inner.frozen = false;
        inner.over = true;
        drop(inner);
        self.state.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self) -> bool {
        self.lock().over
    }

    /// Waits while frozen.
    fn pass(&self) {
        let inner = self.lock();
        drop(
            self.changed
                .wait_while(inner, |inner| inner.frozen)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

fn join(state: &Arc<State>, client: TcpStream, broker: TcpStream) -> io::Result<()> {
    for socket in [&client, &broker] {
        socket.set_nodelay(true)?;
    }
    state
        .lock()
        .sockets
        .extend([client.try_clone()?, broker.try_clone()?]);
    carry(Arc::clone(state), client.try_clone()?, broker.try_clone()?);
    carry(Arc::clone(state), broker, client);
    Ok(())
}

fn carry(state: Arc<State>, mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            state.pass();
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
