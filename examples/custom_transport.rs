//! A transport of one's own that passes the suite: a post office inside the process.
//!
//! Whoever has a backend that this project does not know implements two traits for it, [`Transport`]
//! and [`Consumer`], on the face that suits it. Clients, servers, deadlines, outcomes and the other
//! face come with them. This is the whole of it:
//!
//! * [`PostTransport`] and [`PostConsumer`] implement the contract, verb by verb.
//! * What stands below them is the backend: queues behind one lock, where each change wakes whoever
//!   waits, to look again. In its place yours has a library or a socket.
//! * The tests at the end are the conformance suite, once for each face:
//!   `cargo test -p rpc-examples --example custom_transport`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rpc_core::adapt::Offload;
use rpc_core::blocking::{Client, Consumer, Server, Transport};
use rpc_core::{AckToken, Address, Confirm, ConsumeOptions, ConsumerId, Delivery, ErrorKind};
use rpc_core::{
    ClientOptions, Expiration, Fate, Inbox, Message, Misdeclared, QueueKind, QueueSpec, Router,
};
use rpc_core::{ServerOptions, ShortString, Source, TransportError};

fn main() -> anyhow::Result<()> {
    let office = PostOffice::default();
    let queue = ShortString::from_static("greetings");

    let router = Router::new().handle("greet", |whom: String| Ok(format!("Hello, {whom}!")));
    let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
    let server = Server::start(office.connect(), router, ServerOptions::new(spec))?;

    let client = Client::new(office.connect(), ClientOptions::new(queue.clone()))?;
    let greeting: String = client.call("greet", "thread")?;
    println!("{greeting}");

    // The async face comes from an adapter, which does the waiting on threads of its own.
    let transport = Offload::new(office.connect())?;
    let greeting: String = tokio::runtime::Runtime::new()?.block_on(async {
        let client = rpc_core::Client::new(transport, ClientOptions::new(queue)).await?;
        anyhow::Ok(client.call("greet", "task").await?)
    })?;
    println!("{greeting}");

    server.drain(Duration::from_secs(5));
    Ok(())
}

/// One connection to a [`PostOffice`].
#[derive(Debug)]
struct PostTransport {
    office: PostOffice,
    connection: u64,
}

impl PostTransport {
    /// Carries out a verb under the lock, unless this transport has ended.
    fn verb<R>(
        &self,
        operation: &'static str,
        verb: impl FnOnce(&mut Connection, &mut Queues) -> Result<R, TransportError>,
    ) -> Result<R, TransportError> {
        self.office
            .change(|state| match state.connections.get_mut(&self.connection) {
                Some(connection) => verb(connection, &mut state.queues),
                None => Err(error(ErrorKind::Closed, operation, "on this side")),
            })
    }
}

impl Transport for PostTransport {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The kinds of queue are told apart, and none outlives the process. What this office does not
    /// have, limits and dead letters, it refuses to declare.
    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        let QueueSpec { name, kind, .. } = queue;
        let misuse = |why: Misdeclared| error(ErrorKind::Misuse, "declare", why.to_string());
        queue.check().map_err(misuse)?;
        if !queue.is_plain() {
            return Err(error(
                ErrorKind::Unsupported,
                "declare",
                "only plain queues",
            ));
        }
        let passive = *kind == QueueKind::Passive;
        self.verb("declare", |_, queues| match queues.get(name) {
            Some(known) if passive || known.kind == Some(*kind) => Ok(()),
            Some(_) => Err(error(ErrorKind::Conflict, "declare", name)),
            None if passive => Err(error(ErrorKind::NotFound, "declare", name)),
            None => {
                queues.entry(name.clone()).or_default().kind = Some(*kind);
                Ok(())
            }
        })
    }

    /// Nothing here waits, so the deadline is kept, and the verdict is known at once. A backend that
    /// gives it later takes [`Confirm::open`].
    fn publish(
        &self,
        to: &Address,
        message: Message,
        _deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        let verdict = self.verb("publish", |_, queues| Ok(post(queues, to, message)));
        // An error here means that it is closed: the message is nowhere, and may be sent again.
        verdict.map(Confirm::known).map_err(TransportError::unsent)
    }

    /// The office takes whatever it is given.
    fn is_blocked(&self) -> bool {
        false
    }

    fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        let id = ConsumerId::unique();
        let queue = self.verb("consume", |connection, queues| {
            let (queue, prefetch) = match options.source {
                Source::Queue(name) => match queues.get(&name).map(|queue| queue.kind) {
                    None => return Err(error(ErrorKind::NotFound, "consume", name)),
                    // An inbox is for one consumer alone, which it has.
                    Some(None) => return Err(error(ErrorKind::Denied, "consume", name)),
                    Some(_) => (name, Some(options.prefetch.get().into())),
                },
                Source::Inbox(Inbox::Exclusive) => {
                    // Whoever guesses the name can answer in the place of the service.
                    let name = uuid::Uuid::new_v4().to_string();
                    let name = ShortString::new(name).expect("36 bytes are short");
                    queues.insert(name.clone(), Queue::default());
                    (name, None)
                }
                _ => return Err(error(ErrorKind::Unsupported, "consume", "this source")),
            };
            let subscription = connection.entry(id).or_default();
            (subscription.queue, subscription.prefetch) = (queue.clone(), prefetch);
            Ok(queue)
        })?;
        let (office, id) = (self.office.clone(), (self.connection, id));
        Ok(Box::new(PostConsumer { office, id, queue }))
    }

    /// There are no dead letters here: what is done and what is discarded is gone alike.
    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.reject(token, Fate::Discard)
    }

    /// A token of another transport names a consumer that this one does not have.
    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.verb("settle", |connection, queues| {
            let own = connection.get_mut(&token.consumer());
            let (queue, letter) = own
                .and_then(|own| Some((&own.queue, own.unsettled.remove(&token.tag())?)))
                .ok_or_else(|| error(ErrorKind::Misuse, "settle", "a foreign token"))?;
            if fate != Fate::Discard {
                put_back(queues, queue, token.tag(), letter);
            }
            Ok(())
        })
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        let foreign = || error(ErrorKind::Misuse, "cancel", "a foreign consumer");
        self.office.change(|state| {
            let Some(connection) = state.connections.get_mut(&self.connection) else {
                // It has ended with the transport. Unlike the verbs above, this one succeeds.
                return Ok(());
            };
            let own = connection.get_mut(&consumer).ok_or_else(foreign)?;
            own.end(&mut state.queues);
            Ok(())
        })
    }

    fn close(&self) -> Result<(), TransportError> {
        self.office.change(|state| {
            let subscriptions = state.connections.remove(&self.connection);
            for mut subscription in subscriptions.into_iter().flat_map(HashMap::into_values) {
                subscription.end(&mut state.queues);
                for (number, letter) in subscription.unsettled {
                    put_back(&mut state.queues, &subscription.queue, number, letter);
                }
            }
        });
        Ok(())
    }
}

impl Drop for PostTransport {
    fn drop(&mut self) {
        // Closing this one cannot fail.
        let _ = self.close();
    }
}

/// The receiving end of a [`Subscription`].
#[derive(Debug)]
struct PostConsumer {
    office: PostOffice,
    /// Its connection, and its own.
    id: (u64, ConsumerId),
    queue: ShortString,
}

impl Consumer for PostConsumer {
    fn id(&self) -> ConsumerId {
        self.id.1
    }

    fn queue(&self) -> &ShortString {
        &self.queue
    }

    /// The only wait without a deadline: whoever cancels or closes ends it.
    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        let mut state = self.office.lock();
        while let Some((subscription, queues)) = state.running(self.id) {
            if let Some(delivery) = subscription.deliver(self.id.1, queues) {
                return Ok(Some(delivery));
            }
            let woken = self.office.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(None)
    }
}

impl Drop for PostConsumer {
    fn drop(&mut self) {
        let end = |(one, queues): (&mut Subscription, &mut Queues)| one.end(queues);
        self.office.change(|state| state.running(self.id).map(end));
    }
}

const NAME: &str = "post office";

fn error(kind: ErrorKind, operation: &'static str, detail: impl AsRef<str>) -> TransportError {
    TransportError::new(kind, NAME, operation).with_detail(detail.as_ref())
}

/// What all connections share.
#[derive(Clone, Default)]
struct PostOffice {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

impl PostOffice {
    fn connect(&self) -> PostTransport {
        let mut state = self.lock();
        state.last_connection += 1;
        let connection = state.last_connection;
        state.connections.insert(connection, Connection::new());
        let office = self.clone();
        PostTransport { office, connection }
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let outcome = change(&mut self.lock());
        self.changed.notify_all();
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change panics half-way, so a panic leaves nothing broken behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By hand, because what is in the letters does not belong in a log.
impl fmt::Debug for PostOffice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostOffice").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// Those that have not ended.
    connections: HashMap<u64, Connection>,
    last_connection: u64,
    queues: Queues,
}

/// All consumers it ever had: one that was cancelled may have deliveries to settle, and is not
/// foreign.
type Connection = HashMap<ConsumerId, Subscription>;
type Queues = HashMap<ShortString, Queue>;

#[derive(Default)]
struct Subscription {
    queue: ShortString,
    /// How many letters it may hold. An inbox holds none: they are settled by being delivered.
    prefetch: Option<usize>,
    ended: bool,
    /// Not received yet.
    fetched: VecDeque<(u64, Letter)>,
    /// Received, by their numbers, which are the tags of their tokens.
    unsettled: BTreeMap<u64, Letter>,
}

#[derive(Default)]
struct Queue {
    /// An inbox has none.
    kind: Option<QueueKind>,
    /// By their numbers, so that what comes back takes its old place.
    ready: BTreeMap<u64, Letter>,
    last_number: u64,
}

struct Letter {
    message: Message,
    expires_at: Option<Instant>,
    /// How often it came back.
    returns: u32,
}

impl State {
    fn running(&mut self, id: (u64, ConsumerId)) -> Option<(&mut Subscription, &mut Queues)> {
        let subscription = self.connections.get_mut(&id.0)?.get_mut(&id.1)?;
        (!subscription.ended).then_some((subscription, &mut self.queues))
    }
}

impl Subscription {
    /// The next delivery. When none is left, as many are fetched as the prefetch allows; from an
    /// inbox, which has none, one.
    fn deliver(&mut self, id: ConsumerId, queues: &mut Queues) -> Option<Delivery> {
        let received_at = Instant::now();
        if self.fetched.is_empty() {
            let room = self.prefetch.map_or(1, |most| most - self.unsettled.len());
            let ready = &mut queues.get_mut(&self.queue)?.ready;
            let head = std::iter::from_fn(|| ready.pop_first());
            let is_fresh = |one: &Letter| one.expires_at.is_none_or(|end| received_at < end);
            let fresh = head.filter(|(_, letter)| is_fresh(letter));
            self.fetched.extend(fresh.take(room));
        }
        let (number, letter) = self.fetched.pop_front()?;
        let delivery = Delivery {
            message: letter.message.clone(),
            received_at,
            redelivered: letter.returns > 0,
            token: self.prefetch.map(|_| AckToken::new(id, number)),
        };
        if delivery.token.is_some() {
            self.unsettled.insert(number, letter);
        }
        Some(delivery)
    }

    /// What was fetched and not received goes back; what was received can still be settled.
    fn end(&mut self, queues: &mut Queues) {
        self.ended = true;
        for (number, letter) in self.fetched.drain(..) {
            put_back(queues, &self.queue, number, letter);
        }
        if self.prefetch.is_none() {
            queues.remove(&self.queue);
        }
    }
}

fn post(queues: &mut Queues, to: &Address, message: Message) -> Result<(), TransportError> {
    let (exchange, key) = (to.exchange_name(), to.routing_key());
    if !exchange.is_empty() {
        return Err(error(ErrorKind::NotFound, "publish", exchange));
    }
    let Some(queue) = queues.get_mut(key) else {
        return Err(error(ErrorKind::NoRoute, "publish", key));
    };
    let lifetime = message.expiration.map(Expiration::as_duration);
    let letter = Letter {
        message,
        // An end too far to be written down is as good as none.
        expires_at: lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime)),
        returns: 0,
    };
    queue.last_number += 1;
    queue.ready.insert(queue.last_number, letter);
    Ok(())
}

fn put_back(queues: &mut Queues, queue: &ShortString, number: u64, mut letter: Letter) {
    letter.returns += 1;
    // It is there: only inboxes go, and what an inbox delivered does not come back.
    if let Some(queue) = queues.get_mut(queue) {
        if queue.kind == Some(QueueKind::Quorum) {
            // Without room for the header the letter still counts.
            let count = i64::from(letter.returns);
            let _ = letter.message.headers.insert("x-delivery-count", count);
        }
        queue.ready.insert(number, letter);
    }
}

#[cfg(test)]
mod tests {
    use transport_conformance::{AsyncRow, BlockingRow, suite};

    use super::*;

    suite!(on_threads, {
        let office = PostOffice::default();
        BlockingRow::new(move || Ok(office.connect()))
    });

    suite!(on_tasks, {
        let office = PostOffice::default();
        AsyncRow::new(move || std::future::ready(Offload::new(office.connect())))
    });
}
