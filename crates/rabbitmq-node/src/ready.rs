//! Tells when a broker is ready, without the tools of the broker.
//!
//! One `rabbitmqctl` costs the better part of a second of processor time, and asked too early it fails.
//! The broker opens its listener as the last step of its boot, after users, virtual hosts and
//! queues have been recovered, so the first frame of an AMQP connection already proves readiness.
//! The line that ends the boot on the standard output is awaited as well, because a process that
//! took the port first could answer too.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Waits until the broker on `port` is ready; `alive` is asked now and then.
///
/// The output of this very start begins at `offset` of `output`.
///
/// # Errors
///
/// What was waited for in vain.
pub(crate) fn wait_until_ready(
    port: u16,
    output: &Path,
    offset: u64,
    limit: Duration,
    mut alive: impl FnMut() -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let mut answered = None;
    loop {
        if !alive() {
            return Err("the process ended".into());
        }
        if answered.is_none() && speaks_amqp(port) {
            answered = Some(Instant::now());
        }
        if let Some(since) = answered
            && (text_from(output, offset).contains(BOOT_END) || since.elapsed() > SILENT_BOOT)
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(match answered {
                Some(_) => format!("it did not finish its boot within {limit:?}"),
                None => format!("nothing spoke AMQP on port {port} within {limit:?}"),
            });
        }
        thread::sleep(POLL);
    }
}

/// Sends the protocol header and expects the method frame that answers it.
fn speaks_amqp(port: u16) -> bool {
    let exchange = || -> std::io::Result<u8> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, EXCHANGE_LIMIT)?;
        stream.set_read_timeout(Some(EXCHANGE_LIMIT))?;
        stream.set_write_timeout(Some(EXCHANGE_LIMIT))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame_type = [0];
        stream.read_exact(&mut frame_type)?;
        Ok(frame_type[0])
    };
    exchange().is_ok_and(|frame_type| frame_type == METHOD_FRAME)
}

/// Reads what was written to the file since `offset`, as far as it can be read.
pub(crate) fn text_from(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The banner's last words, the same in 3.x and 4.x.
const BOOT_END: &str = "completed with";

/// After this time of answering, a broker that prints no such line is believed all the same.
const SILENT_BOOT: Duration = Duration::from_secs(5);

const EXCHANGE_LIMIT: Duration = Duration::from_secs(2);

const METHOD_FRAME: u8 = 1;

const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn dead_process_is_reported_at_once() {
        let started = Instant::now();
        let limit = Duration::from_secs(30);
        let result = wait_until_ready(1, Path::new("/nonexistent"), 0, limit, || false);
        assert!(result.is_err() && started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn listener_that_speaks_something_else_is_no_broker() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"HTTP/1.1 400").expect("written");
        });
        assert!(!speaks_amqp(port));
        peer.join().expect("no panic");
    }

    #[test]
    fn only_the_output_of_this_start_counts() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "old new").expect("written");
        assert_eq!(text_from(file.path(), 4), "new");
    }
}
