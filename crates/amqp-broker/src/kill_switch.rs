//! A second handle to a socket, to end what waits on it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// A second handle to a socket that a client library owns.
///
/// Neither library ends a wait by itself; shutting the socket down under it does, wherever it
/// waits. All clones are one switch.
///
/// While a clone exists the kernel keeps the socket open, also after the library has dropped its
/// own handle. So cut it, or drop the last clone, when the connection is done with.
#[derive(Clone, Debug)]
pub struct KillSwitch(Arc<TcpStream>);

impl KillSwitch {
    /// A switch for the socket under `stream`.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self(Arc::new(stream.try_clone()?)))
    }

    /// Shuts the socket down in both directions. Every wait on it ends now.
    ///
    /// Idempotent; a socket that is closed already is none the worse.
    pub fn cut(&self) {
        // The only error there is says that the peer was faster.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Cuts at `deadline`, unless the guard is dropped before.
    ///
    /// Costs a thread for as long as the guard lives: for connect, declare, consume and close, not
    /// for publish and ack.
    ///
    /// # Errors
    ///
    /// When the system gives no thread. Nothing is guarded then.
    pub fn cut_after(&self, deadline: Instant) -> io::Result<Guard> {
        let (disarm, disarmed) = mpsc::channel::<()>();
        let fired = Arc::new(AtomicBool::new(false));
        let switch = self.clone();
        let report = Arc::clone(&fired);
        let thread = thread::Builder::new()
            .name("amqp-watchdog".to_owned())
            .spawn(move || {
                let left = deadline.saturating_duration_since(Instant::now());
                if disarmed.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                    report.store(true, Ordering::Release);
                    switch.cut();
                }
            })?;
        Ok(Guard {
            disarm: Some(disarm),
            fired,
            thread: Some(thread),
        })
    }
}

/// What keeps a [`KillSwitch`] from being cut once the guarded call has returned. Dropping it
/// disarms it, and its thread is gone when the drop returns.
#[derive(Debug)]
#[must_use = "dropping it disarms the watchdog at once"]
pub struct Guard {
    disarm: Option<mpsc::Sender<()>>,
    fired: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Whether the deadline passed and the socket was cut: the error that the library reports now
    /// is only the consequence.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Disarms it, and tells whether that was too late.
    #[must_use]
    pub fn disarm(mut self) -> bool {
        self.stop();
        self.has_fired()
    }

    fn stop(&mut self) {
        // The thread waits on this channel, and its end is the signal.
        self.disarm = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (near, far)
    }

    #[test]
    fn a_blocked_read_ends_at_the_deadline() {
        let (mut near, _far) = pair();
        let switch = KillSwitch::new(&near).unwrap();
        let guard = switch
            .cut_after(Instant::now() + Duration::from_millis(20))
            .unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        assert!(guard.disarm());
    }

    #[test]
    fn a_disarmed_guard_cuts_nothing() {
        let (near, far) = pair();
        let switch = KillSwitch::new(&near).unwrap();
        let guard = switch
            .cut_after(Instant::now() + Duration::from_secs(600))
            .unwrap();
        assert!(!guard.disarm());
        far.set_nonblocking(true).unwrap();
        assert_eq!(
            (&far).read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn cutting_twice_is_cutting_once() {
        let (near, far) = pair();
        let switch = KillSwitch::new(&near).unwrap();
        drop(far);
        switch.cut();
        switch.clone().cut();
    }
}
