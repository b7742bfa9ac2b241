//! A TCP proxy before the broker that can go silent, cut a connection, or speak for the broker.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{eventually, url, url_at_port};
use transport_amiquip::AmqpUrl;

pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    silent: AtomicBool,
    over: AtomicBool,
    /// The ends towards the client and towards the broker, in the order of connecting.
    pairs: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let client = client.unwrap();
                let url = url();
                let broker = TcpStream::connect((url.host(), url.port())).unwrap();
                for stream in [&client, &broker] {
                    stream.set_nodelay(true).unwrap();
                    stream
                        .set_read_timeout(Some(Duration::from_millis(20)))
                        .unwrap();
                }
                let ends =
                    |a: &TcpStream, b: &TcpStream| (a.try_clone().unwrap(), b.try_clone().unwrap());
                shared.pairs.lock().unwrap().push(ends(&client, &broker));
                for (from, to) in [ends(&client, &broker), ends(&broker, &client)] {
                    let state = Arc::clone(&shared);
                    thread::spawn(move || forward(&from, &to, &state));
                }
            }
        });
        Self { port, state }
    }

    /// The broker, seen through this proxy.
    pub(crate) fn url(&self, query: &str) -> AmqpUrl {
        url_at_port(self.port, query)
    }

    /// Keeps the sockets and forwards nothing.
    pub(crate) fn go_silent(&self) {
        self.state.silent.store(true, Ordering::SeqCst);
    }

    /// Cuts the connection that was made as this one, counted from nothing.
    pub(crate) fn cut(&self, number: usize) {
        let pairs = self.state.pairs.lock().unwrap();
        for end in [&pairs[number].0, &pairs[number].1] {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Tells the client something as if it were the broker.
    pub(crate) fn say(&self, number: usize, bytes: &[u8]) {
        let pairs = self.state.pairs.lock().unwrap();
        (&pairs[number].0).write_all(bytes).unwrap();
    }

    /// Whether the client has ended all its connections.
    pub(crate) fn wait_for_the_end_of_all(&self) {
        eventually("the client ends its connections", || {
            let pairs = self.state.pairs.lock().unwrap();
            pairs.iter().all(|(client, _)| {
                matches!(client.peek(&mut [0]), Ok(0))
                    || client.take_error().is_ok_and(|error| error.is_some())
            })
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for (client, broker) in self.state.pairs.lock().unwrap().iter() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = broker.shutdown(Shutdown::Both);
        }
    }
}

fn forward(mut from: &TcpStream, mut to: &TcpStream, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if state.over.load(Ordering::SeqCst) {
            return;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            // Lost, which nobody can tell from late.
            Ok(_) if state.silent.load(Ordering::SeqCst) => {}
            Ok(len) => {
                if to.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
