//! The proxy as tests hold it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::carry::{Line, carry};
use crate::faults::{Direction, End, Fuse, Passage};
use crate::pair::{POLL, Pair};

/// A proxy before one server. Dropped, it cuts what is left and listens no more.
///
/// Connections are numbered in the order in which they came, from 0.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Line,
    /// Held by the threads that carry: a connection ends for its peers when nobody holds it.
    pairs: Mutex<Vec<Weak<Pair>>>,
    target: Mutex<SocketAddr>,
    refusing: AtomicBool,
    over: AtomicBool,
}

impl Proxy {
    /// A proxy to the server at this address, on a port of its own.
    ///
    /// # Errors
    ///
    /// When the address means nothing, or there is no port or thread left.
    pub fn to(server: impl ToSocketAddrs) -> io::Result<Self> {
        let target = resolve(server)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            line: Line::default(),
            pairs: Mutex::default(),
            target: Mutex::new(target),
            refusing: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || accept(&listener, &accepting))?;
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port where clients connect.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sends later connections to another server, as a change of the name service does.
    ///
    /// # Errors
    ///
    /// When the address means nothing.
    pub fn set_target(&self, server: impl ToSocketAddrs) -> io::Result<()> {
        *lock(&self.shared.target) = resolve(server)?;
        Ok(())
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared.pairs).len()
    }

    /// How many bytes were carried this way, over all connections.
    #[must_use]
    pub fn carried(&self, direction: Direction) -> u64 {
        self.shared.line.lane(direction, |lane| lane.carried)
    }

    /// Ends all connections, in the middle of whatever they carry.
    pub fn end_all(&self, end: End) {
        for pair in self.shared.open() {
            pair.end(end);
        }
        self.shared.line.wake();
    }

    /// Ends one connection; whether there was one of this number.
    pub fn end(&self, number: usize, end: End) -> bool {
        let pair = self.shared.pair(number);
        if let Some(pair) = &pair {
            pair.end(end);
        }
        self.shared.line.wake();
        pair.is_some()
    }

    /// Ends whichever connection carries the last of so many more bytes this way, just after it.
    /// With 0 it is the next byte that decides, and it still arrives.
    pub fn end_after(&self, direction: Direction, bytes: u64, end: End) {
        let fuse = Fuse {
            left: bytes.max(1),
            end,
        };
        self.shared
            .line
            .lane(direction, |lane| lane.fuse = Some(fuse));
    }

    /// Takes back an [`end_after`](Self::end_after) that has not come to pass; whether there was one.
    pub fn disarm(&self, direction: Direction) -> bool {
        let fuse = self.shared.line.lane(direction, |lane| lane.fuse.take());
        fuse.is_some()
    }

    /// Ends one direction of all connections, and leaves the other.
    pub fn half_close(&self, direction: Direction) {
        for pair in self.shared.open() {
            pair.half_close(direction);
        }
    }

    /// Carries nothing this way any more, loses nothing, and keeps the connections: as a peer that
    /// is stopped, or a cable that is out for a while.
    pub fn pause(&self, direction: Direction) {
        self.pass(direction, Passage::Held);
    }

    /// Loses what goes this way, and keeps the connections: a black hole.
    pub fn swallow(&self, direction: Direction) {
        self.pass(direction, Passage::Swallowed);
    }

    /// Carries this way again, from where it was paused.
    pub fn resume(&self, direction: Direction) {
        self.pass(direction, Passage::Faithful);
    }

    /// Sends in pieces of 1 to 7 bytes.
    pub fn slice(&self, direction: Direction, sliced: bool) {
        self.shared
            .line
            .lane(direction, |lane| lane.sliced = sliced);
    }

    /// Sends no more than so many bytes a second on each connection; with `None` as fast as it goes.
    pub fn slow(&self, direction: Direction, bytes_per_second: Option<u32>) {
        self.shared
            .line
            .lane(direction, |lane| lane.rate = bytes_per_second);
    }

    /// Ends each new connection as soon as it is made.
    ///
    /// A port that is closed refuses a little earlier; that is the server's own fault to show.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::SeqCst);
    }

    /// Takes all faults of the line away. What has ended stays ended.
    pub fn heal(&self) {
        self.refuse(false);
        for direction in Direction::BOTH {
            self.shared.line.lane(direction, |lane| {
                lane.passage = Passage::Faithful;
                lane.sliced = false;
                lane.rate = None;
                lane.fuse = None;
            });
        }
    }

    /// Tells the client of a connection something as if it were the server.
    ///
    /// # Errors
    ///
    /// When there is no such connection, or it does not take it.
    pub fn say(&self, number: usize, bytes: &[u8]) -> io::Result<()> {
        let pair = self.shared.pair(number);
        let pair = pair.ok_or(io::ErrorKind::NotConnected)?;
        pair.sink(Direction::Down).write_all(bytes)
    }

    /// Waits until the client has ended all its connections; false when it has not in time.
    #[must_use]
    pub fn client_leaves_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self
                .shared
                .open()
                .iter()
                .all(|pair| pair.is_left_by_client())
            {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL / 10);
        }
    }

    fn pass(&self, direction: Direction, passage: Passage) {
        self.shared
            .line
            .lane(direction, |lane| lane.passage = passage);
    }
}

impl Shared {
    /// The connections that have not ended.
    fn open(&self) -> Vec<Arc<Pair>> {
        lock(&self.pairs).iter().filter_map(Weak::upgrade).collect()
    }

    fn pair(&self, number: usize) -> Option<Arc<Pair>> {
        lock(&self.pairs).get(number).and_then(Weak::upgrade)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.end_all(End::Cut);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn resolve(server: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let mut addresses = server.to_socket_addrs()?;
    addresses
        .next()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = near else { continue };
        // It must not take the other connections with it when it cannot be joined.
        if join(near, shared).is_err() {
            continue;
        }
    }
}

fn join(near: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    if shared.refusing.load(Ordering::SeqCst) {
        return SockRef::from(&near).set_linger(Some(Duration::ZERO));
    }
    let target = *lock(&shared.target);
    let far = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
    let pair = Arc::new(Pair::join(near, far)?);
    let mut pairs = lock(&shared.pairs);
    for direction in Direction::BOTH {
        let (shared, pair) = (Arc::clone(shared), Arc::clone(&pair));
        thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(move || carry(&shared.line, &pair, direction))?;
    }
    pairs.push(Arc::downgrade(&pair));
    Ok(())
}

/// On one machine a connection comes at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
