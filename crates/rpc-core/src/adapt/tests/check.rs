//! Clients whose message to themselves does not come back: what follows is the same on both faces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::script::Script;
use super::until;
use crate::adapt::Offload;
use crate::{
    AckToken, Address, Client, ClientOptions, Confirm, ConnectWith, ConsumeOptions, ConsumerId,
    ErrorKind, Fate, LinkState, Message, QueueSpec, ShortString, TransportError, blocking,
};

/// A blocking transport on which a publish fails, and tells of an alarm, too.
#[derive(Debug)]
struct Failing {
    script: Script,
    kind: ErrorKind,
    alarm: bool,
    blocked: AtomicBool,
    /// How many inboxes there have been on all of them.
    inboxes: Arc<AtomicUsize>,
    /// Closing it never ends.
    hangs: bool,
}

impl blocking::Transport for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.script.declare(queue)
    }

    fn publish(&self, _: &Address, _: Message, _: Instant) -> Result<Confirm, TransportError> {
        self.blocked.store(self.alarm, Ordering::SeqCst);
        Err(TransportError::new(self.kind, "failing", "publish"))
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::SeqCst)
    }

    fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Box<dyn blocking::Consumer>, TransportError> {
        self.inboxes.fetch_add(1, Ordering::SeqCst);
        self.script.consume(options)
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.script.ack(token)
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.script.reject(token, fate)
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.script.cancel(consumer)
    }

    fn close(&self) -> Result<(), TransportError> {
        if self.hangs {
            loop {
                thread::park();
            }
        }
        self.script.close()
    }
}

/// How the first attempt to connect ends: up, or with an error of this kind.
fn first(state: impl Fn() -> LinkState) -> Option<ErrorKind> {
    let of = |state: LinkState| match state {
        LinkState::Up(_) => Some(None),
        LinkState::Connecting { cause, .. } => cause.map(|cause| Some(cause.kind())),
        other => panic!("{other:?}"),
    };
    until("it has tried to connect", || of(state()).is_some());
    of(state()).flatten()
}

const OUTCOMES: [(ErrorKind, bool, Option<ErrorKind>); 5] = [
    (ErrorKind::Timeout, true, None),
    (ErrorKind::Blocked, true, None),
    (ErrorKind::Closed, true, Some(ErrorKind::Closed)),
    (ErrorKind::Denied, false, Some(ErrorKind::Denied)),
    (ErrorKind::Timeout, false, Some(ErrorKind::Connect)),
];

fn failing(kind: ErrorKind, alarm: bool, inboxes: &Arc<AtomicUsize>) -> Failing {
    Failing {
        script: Script::default(),
        kind,
        alarm,
        blocked: AtomicBool::new(false),
        inboxes: Arc::clone(inboxes),
        hangs: false,
    }
}

/// Where moving in is denied, and closing what is left never ends.
fn denied() -> Failing {
    Failing {
        hangs: true,
        ..failing(ErrorKind::Denied, false, &Arc::default())
    }
}

/// Less than the supervisor leaves for closing, and for connecting.
const AT_ONCE: Duration = Duration::from_secs(2);

fn options() -> ClientOptions {
    ClientOptions::new(ShortString::from_static("q"))
}

#[test]
fn an_alarm_excuses_a_blocking_client_from_hearing_itself_and_nothing_else_does() {
    for (kind, alarm, expected) in OUTCOMES {
        let inboxes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&inboxes);
        let connector = blocking::ConnectWith::new(1, move |_| Ok(failing(kind, alarm, &counted)));
        let client = blocking::Client::connect(connector, options());
        assert_eq!(first(|| client.link_state()), expected, "{kind:?}, {alarm}");
        if expected.is_none() {
            assert_eq!(inboxes.load(Ordering::SeqCst), 1, "it keeps its inbox");
        }
        client.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_excuses_an_async_client_from_hearing_itself_and_nothing_else_does() {
    for (kind, alarm, expected) in OUTCOMES {
        let inboxes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&inboxes);
        let connector = ConnectWith::new(1, move |_| {
            let transport = Offload::new(failing(kind, alarm, &counted));
            async move { transport }
        });
        let client = Client::connect(connector, options());
        assert_eq!(first(|| client.link_state()), expected, "{kind:?}, {alarm}");
        if expected.is_none() {
            assert_eq!(inboxes.load(Ordering::SeqCst), 1, "it keeps its inbox");
        }
        client.close().await;
    }
}

#[test]
fn why_a_blocking_client_is_not_connected_is_known_before_what_is_left_has_closed() {
    let begun = Instant::now();
    let connector = blocking::ConnectWith::new(1, |_| Ok(denied()));
    let client = blocking::Client::connect(connector, options());
    assert_eq!(first(|| client.link_state()), Some(ErrorKind::Denied));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    client.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_an_async_client_is_not_connected_is_known_before_what_is_left_has_closed() {
    let begun = Instant::now();
    let connector = ConnectWith::new(1, |_| async { Offload::new(denied()) });
    let client = Client::connect(connector, options());
    assert_eq!(first(|| client.link_state()), Some(ErrorKind::Denied));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    client.close().await;
}
