//! Asks a broker what it is, since lapin does not tell.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a broker calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) product: String,
    pub(crate) version: String,
}

/// A broker sends a few hundred bytes.
const MOST: usize = 64 * 1024;

/// Reads the properties with which the broker at `peer` begins every conversation, and hangs up
/// before the login. Takes no longer than `limit`, and ends with the runtime.
pub(crate) async fn ask(peer: SocketAddr, limit: Duration) -> io::Result<Server> {
    timeout(limit, talk(peer)).await?
}

async fn talk(peer: SocketAddr) -> io::Result<Server> {
    let mut stream = TcpStream::connect(peer).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [1, 0, 0, len @ ..] = head else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await?;
    read_start(&payload).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The product and version in a `connection.start`.
fn read_start(payload: &[u8]) -> Option<Server> {
    // Class 10, method 10, then the two bytes of AMQP's own version.
    let rest = payload.strip_prefix(&[0, 10, 0, 10])?.get(2..)?;
    let (mut table, _) = long(rest)?;
    let mut server = Server::default();
    while let Some((&len, rest)) = table.split_first() {
        let (name, rest) = rest.split_at_checked(len.into())?;
        let (&kind, rest) = rest.split_first()?;
        let (value, rest) = value(kind, rest)?;
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"product" => server.product = text(),
            b"version" => server.version = text(),
            _ => {}
        }
        table = rest;
    }
    Some(server)
}

/// The bytes of a value and what follows. What is nested is passed over by its length, so depth
/// costs nothing.
fn value(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = match kind {
        b'S' | b'x' | b'A' | b'F' => return long(bytes),
        b't' | b'b' | b'B' => 1,
        b's' | b'u' | b'U' => 2,
        b'i' | b'I' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'V' => 0,
        _ => return None,
    };
    bytes.split_at_checked(len)
}

fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
        let mut entry = vec![u8::try_from(name.len()).unwrap()];
        entry.extend(name.as_bytes());
        entry.push(kind);
        entry.extend(value);
        entry
    }

    fn sized(bytes: &[u8]) -> Vec<u8> {
        let mut sized = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        sized.extend(bytes);
        sized
    }

    fn start(table: &[u8]) -> Vec<u8> {
        let mut start = vec![0, 10, 0, 10, 0, 9];
        start.extend(sized(table));
        start.extend(sized(b"PLAIN"));
        start
    }

    #[test]
    fn product_and_version_are_found_among_the_rest() {
        let nested = sized(&entry("basic.nack", b't', &[1]));
        let table = [
            entry("capabilities", b'F', &nested),
            entry("product", b'S', &sized(b"RabbitMQ")),
            entry("number", b'I', &[0; 4]),
            entry("version", b'S', &sized(b"3.10.8")),
        ]
        .concat();
        assert_eq!(
            read_start(&start(&table)),
            Some(Server {
                product: "RabbitMQ".to_owned(),
                version: "3.10.8".to_owned()
            })
        );
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_refused() {
        let whole = start(&entry("product", b'S', &sized(b"RabbitMQ")));
        for len in 0..whole.len() - 9 {
            assert_eq!(read_start(&whole[..len]), None, "{len}");
        }
        assert_eq!(read_start(&start(&entry("product", b'?', &[]))), None);
    }
}
