//! A server that is not the one a client takes it for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A server that says the same to everybody, whatever it is told. Dropped, it listens no more; what
/// is connected ends with its client.
#[derive(Debug)]
pub struct Stranger {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Stranger {
    /// One that says this once, and then keeps the connection and its silence.
    ///
    /// # Errors
    ///
    /// When there is no port or thread left.
    pub fn saying(bytes: impl Into<Vec<u8>>) -> io::Result<Self> {
        let bytes = bytes.into();
        Self::new(move |client| client.write_all(&bytes))
    }

    /// One that says this, one byte each time, and begins anew at the end of it.
    ///
    /// # Errors
    ///
    /// When there is no port or thread left.
    pub fn dripping(bytes: impl Into<Vec<u8>>, every: Duration) -> io::Result<Self> {
        let bytes = bytes.into();
        Self::new(move |client| {
            for byte in bytes.iter().cycle() {
                client.write_all(&[*byte])?;
                thread::sleep(every);
            }
            Ok(())
        })
    }

    /// One that hangs up at once.
    ///
    /// # Errors
    ///
    /// When there is no port or thread left.
    pub fn hanging_up() -> io::Result<Self> {
        Self::new(|_| Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn new(
        play: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let (stop, play) = (Arc::clone(&over), Arc::new(play));
        thread::Builder::new()
            .name("stranger".into())
            .spawn(move || {
                for client in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut client) = client else { continue };
                    let play = Arc::clone(&play);
                    let _ = thread::Builder::new()
                        .name("stranger".into())
                        .spawn(move || {
                            if play(&mut client).is_ok() {
                                wait_for_the_end(&mut client);
                            }
                        });
                }
            })?;
        Ok(Self { address, over })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn wait_for_the_end(client: &mut TcpStream) {
    let mut nothing = [0; 512];
    while matches!(client.read(&mut nothing), Ok(read) if read > 0) {}
}
