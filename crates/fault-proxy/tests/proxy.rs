//! Every fault does what it says, between two plain sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use fault_proxy::{Direction, End, Proxy};

const SOON: Duration = Duration::from_secs(10);

/// A client and a server with the proxy between them.
struct Scene {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Scene {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(proxy.address()).unwrap();
        let server = listener.accept().unwrap().0;
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(SOON)).unwrap();
        }
        let scene = Self {
            proxy,
            listener,
            client,
            server,
        };
        scene.says("hello");
        scene
    }

    /// What the client says arrives.
    fn says(&self, text: &str) {
        (&self.client).write_all(text.as_bytes()).unwrap();
        let mut heard = vec![0; text.len()];
        (&self.server).read_exact(&mut heard).unwrap();
        assert_eq!(heard, text.as_bytes());
    }

    /// The server sees a connection a moment before the proxy counts it.
    fn has_connections(&self, count: usize) {
        let deadline = Instant::now() + SOON;
        while self.proxy.connections() != count {
            assert!(
                Instant::now() < deadline,
                "{} connections",
                self.proxy.connections()
            );
            std::thread::yield_now();
        }
    }

    /// Nothing arrives at the server.
    fn hears_nothing(&self) {
        self.server
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let error = (&self.server).read(&mut [0]).unwrap_err();
        assert!(matches!(
            error.kind(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut
        ));
        self.server.set_read_timeout(Some(SOON)).unwrap();
    }
}

#[test]
fn a_cut_lets_what_was_carried_arrive_and_then_both_read_an_end() {
    let scene = Scene::set();
    scene.proxy.end_after(Direction::Up, 3, End::Cut);
    (&scene.client).write_all(b"abcdef").unwrap();
    let mut heard = Vec::new();
    (&scene.server).read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"abc");
    assert_eq!((&scene.client).read(&mut [0]).unwrap(), 0);
    assert_eq!(scene.proxy.carried(Direction::Up), 8);
    assert!(!scene.proxy.disarm(Direction::Up), "it has burnt down");
}

#[test]
fn a_cut_loses_nothing_that_was_carried_when_the_other_way_is_full() {
    let scene = Scene::set();
    scene.proxy.pause(Direction::Down);
    scene
        .server
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    while (&scene.server).write(&[0; 64 << 10]).is_ok() {}
    scene.proxy.end_after(Direction::Up, 3, End::Cut);
    (&scene.client).write_all(b"abcdef").unwrap();
    let mut heard = Vec::new();
    (&scene.server).read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"abc");
}

#[test]
fn what_has_arrived_is_counted_and_burns_no_fuse_that_is_set_later() {
    for _ in 0..200 {
        let scene = Scene::set();
        assert_eq!(scene.proxy.carried(Direction::Up), 5);
    }
}

#[test]
fn a_reset_is_an_error_at_both_ends() {
    let scene = Scene::set();
    scene.proxy.end_all(End::Reset);
    for mut socket in [&scene.client, &scene.server] {
        let error = socket.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_frees_a_connection_that_is_paused_with_its_buffers_full() {
    let scene = Scene::set();
    scene.proxy.pause(Direction::Up);
    scene
        .client
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    while (&scene.client).write(&[0; 64 << 10]).is_ok() {}
    scene.proxy.end_all(End::Reset);
    let error = (&scene.server).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_is_paused_arrives_later_and_what_is_swallowed_never() {
    let scene = Scene::set();
    scene.proxy.pause(Direction::Up);
    (&scene.client).write_all(b"kept").unwrap();
    scene.hears_nothing();
    scene.proxy.resume(Direction::Up);
    let mut heard = [0; 4];
    (&scene.server).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"kept");

    scene.proxy.swallow(Direction::Up);
    (&scene.client).write_all(b"lost").unwrap();
    scene.hears_nothing();
    scene.proxy.heal();
    scene.says("found");
}

#[test]
fn a_half_close_leaves_the_other_direction() {
    let scene = Scene::set();
    scene.proxy.half_close(Direction::Up);
    assert_eq!((&scene.server).read(&mut [0]).unwrap(), 0);
    (&scene.server).write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    (&scene.client).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
}

#[test]
fn slices_and_slowness_change_no_byte() {
    let scene = Scene::set();
    let text: String = ('a'..='z').cycle().take(2_000).collect();
    scene.proxy.slice(Direction::Up, true);
    scene.says(&text);
    scene.proxy.heal();
    scene.proxy.slow(Direction::Up, Some(10_000));
    let begun = Instant::now();
    scene.says(&text);
    assert!(begun.elapsed() >= Duration::from_millis(90));
}

#[test]
fn who_is_refused_is_told_so_at_once_and_may_come_later() {
    let scene = Scene::set();
    scene.proxy.refuse(true);
    let refused = TcpStream::connect(scene.proxy.address()).unwrap();
    refused.set_read_timeout(Some(SOON)).unwrap();
    assert!(!matches!((&refused).read(&mut [0]), Ok(1..)));
    scene.says("those who are in stay");
    scene.proxy.heal();
    let _welcome = TcpStream::connect(scene.proxy.address()).unwrap();
    scene.listener.accept().unwrap();
    scene.has_connections(2);
}

#[test]
fn a_connection_ends_by_its_number_and_the_others_stay() {
    let scene = Scene::set();
    let second = TcpStream::connect(scene.proxy.address()).unwrap();
    let far = scene.listener.accept().unwrap().0;
    scene.has_connections(2);
    assert!(scene.proxy.end(1, End::Cut) && !scene.proxy.end(2, End::Cut));
    assert_eq!((&second).read(&mut [0]).unwrap(), 0);
    assert_eq!((&far).read(&mut [0]).unwrap(), 0);
    scene.says("the first is whole");
}

#[test]
fn the_proxy_speaks_for_the_server_and_knows_when_the_client_leaves() {
    let scene = Scene::set();
    scene.proxy.say(0, b"x").unwrap();
    let mut heard = [0];
    (&scene.client).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"x");
    assert!(!scene.proxy.client_leaves_within(Duration::from_millis(20)));
    drop(scene.client);
    assert!(scene.proxy.client_leaves_within(SOON));
}

#[test]
fn a_proxy_that_is_dropped_ends_its_connections_and_its_port() {
    let scene = Scene::set();
    let address = scene.proxy.address();
    drop(scene.proxy);
    assert_eq!((&scene.client).read(&mut [0]).unwrap(), 0);
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < SOON);
    }
}
