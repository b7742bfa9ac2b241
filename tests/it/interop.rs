//! Callers and workers of both RabbitMQ transports and plain Python scripts, on one queue.
//!
//! The scripts in `tests/python` are written with pika as tutorials teach it and know nothing of
//! this project.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fib_service::{Index, ServiceOptions, fib, service};
use futures_util::{StreamExt, TryStreamExt, stream};
use rpc_core::codec::Text;
use rpc_core::{CallError, ClientOptions, Code, QueueKind, QueueSpec, ServerOptions, ShortString};
use rpc_core::{Transport as _, blocking, blocking::Transport as _};
use tokio::runtime::Runtime;
use transport_amiquip::{AmiquipConfig, AmiquipTransport};
use transport_lapin::{LapinConfig, LapinTransport};

use crate::broker;

const IN_FLIGHT: usize = 16;

/// How long a script may take for whatever it is to do.
const SCRIPT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Amiquip,
    Lapin,
    Script,
}

const PEERS: [Peer; 3] = [Peer::Lapin, Peer::Amiquip, Peer::Script];

/// A worker that serves until it is dropped.
enum Worker {
    Amiquip(
        Arc<AmiquipTransport>,
        Option<blocking::Server<Arc<AmiquipTransport>, rpc_core::Router>>,
    ),
    Lapin(Runtime, LapinWorker),
    Script(Script),
}

type LapinWorker = (
    Arc<LapinTransport>,
    Option<rpc_core::Server<Arc<LapinTransport>, rpc_core::Router>>,
);

impl Worker {
    fn start(peer: Peer, queue: &ShortString) -> Self {
        let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
        let options = ServerOptions::new(spec.clone());
        let service = service(ServiceOptions::default());
        match peer {
            Peer::Amiquip => {
                let transport = Arc::new(amiquip());
                let server =
                    blocking::Server::start(Arc::clone(&transport), service, options).unwrap();
                Self::Amiquip(transport, Some(server))
            }
            Peer::Lapin => {
                let runtime = Runtime::new().unwrap();
                let worker = runtime.block_on(async {
                    let transport = Arc::new(lapin().await);
                    let server =
                        rpc_core::Server::start(Arc::clone(&transport), service, options).await;
                    (transport, Some(server.unwrap()))
                });
                Self::Lapin(runtime, worker)
            }
            Peer::Script => {
                // The script expects to find its queue.
                let transport = amiquip();
                transport.declare(&spec).unwrap();
                transport.close().unwrap();
                let mut command = Script::command("tutorial_worker.py");
                command.args([broker::url().as_str(), queue.as_str()]);
                // One test has it die of a request, with a long farewell.
                let mut script = Script::start(command.stderr(Stdio::null()));
                assert_eq!(
                    script.first_line(),
                    "ready",
                    "the script could not consume: run it by hand"
                );
                Self::Script(script)
            }
        }
    }

    /// Waits for a script to end by itself.
    fn wait(&mut self) {
        if let Self::Script(script) = self {
            script.end();
        }
    }

    /// Requests answered so far; a script keeps no count.
    fn served(&self) -> u64 {
        match self {
            Self::Amiquip(_, server) => server.as_ref().map_or(0, |server| server.stats().ok),
            Self::Lapin(_, (_, server)) => server.as_ref().map_or(0, |server| server.stats().ok),
            Self::Script(_) => 0,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let limit = Duration::from_secs(10);
        match self {
            Self::Amiquip(transport, server) => {
                server.take().map(|server| server.drain(limit));
                let _ = transport.close();
            }
            Self::Lapin(runtime, (transport, server)) => {
                let server = server.take();
                runtime.block_on(async {
                    if let Some(server) = server {
                        server.drain(limit).await;
                    }
                    let _ = transport.close().await;
                });
            }
            Self::Script(_) => {}
        }
    }
}

/// A running script, which is killed when it is dropped: also by a test that gave it up.
struct Script(Child);

impl Script {
    fn command(name: &str) -> Command {
        let python = std::env::var("RPC_PYTHON").unwrap_or_else(|_| "python3".into());
        let mut command = Command::new(python);
        command.arg(format!("{}/python/{name}", env!("CARGO_MANIFEST_DIR")));
        command
    }

    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        Self(command.spawn().expect("python starts"))
    }

    /// Waits for the first line that it prints.
    fn first_line(&mut self) -> String {
        let stdout = self.0.stdout.take().expect("it is piped");
        let line = aside(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            line
        });
        let line = line.recv_timeout(SCRIPT_LIMIT);
        line.expect("the script prints a line in time")
            .trim()
            .to_owned()
    }

    /// Waits for its end.
    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + SCRIPT_LIMIT;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the script does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, and returns all that it wrote.
    fn output(mut self) -> Output {
        let stdout = all_of(self.0.stdout.take().expect("it is piped"));
        let stderr = all_of(self.0.stderr.take().expect("it is piped"));
        let status = self.end();
        Output {
            status,
            stdout: stdout.recv_timeout(SCRIPT_LIMIT).expect("its end is read"),
            stderr: stderr.recv_timeout(SCRIPT_LIMIT).expect("its end is read"),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads to the end on a thread of its own, so that no full pipe holds the script up.
fn all_of(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    aside(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

/// Does on a thread what cannot be given a deadline, so that waiting for it can.
fn aside<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Whoever waited may have given up.
        let _ = sender.send(action());
    });
    receiver
}

async fn lapin() -> LapinTransport {
    LapinTransport::connect(LapinConfig::new(broker::url().parse().unwrap()))
        .await
        .unwrap()
}

fn amiquip() -> AmiquipTransport {
    AmiquipTransport::connect(AmiquipConfig::new(broker::url().parse().unwrap())).unwrap()
}

fn run_tutorial_client(queue: &ShortString, arguments: &[&str]) -> Output {
    let mut command = Script::command("tutorial_client.py");
    command
        .args([broker::url().as_str(), queue.as_str()])
        .args(arguments)
        .stderr(Stdio::piped());
    Script::start(&mut command).output()
}

fn options(queue: &ShortString) -> ClientOptions {
    ClientOptions::new(queue.clone()).with_codec(Text)
}

/// Calls with each number, and returns the answers in order.
fn call_all(peer: Peer, queue: &ShortString, numbers: &[u64]) -> Result<Vec<u128>, CallError> {
    match peer {
        Peer::Lapin => Runtime::new().unwrap().block_on(async {
            let transport = Arc::new(lapin().await);
            let client = rpc_core::Client::new(Arc::clone(&transport), options(queue)).await;
            let client = client.unwrap();
            let answers = stream::iter(numbers)
                .map(|&n| {
                    let client = client.clone();
                    async move { client.call::<_, u128>("", &Index::new(n)).await }
                })
                .buffered(IN_FLIGHT)
                .try_collect()
                .await;
            transport.close().await.unwrap();
            answers
        }),
        Peer::Amiquip => {
            let transport = Arc::new(amiquip());
            let client = blocking::Client::new(Arc::clone(&transport), options(queue)).unwrap();
            let answers = thread::scope(|scope| {
                let chunks = numbers.chunks(numbers.len().div_ceil(IN_FLIGHT));
                let callers: Vec<_> = chunks
                    .map(|chunk| {
                        let client = &client;
                        let call = move |&n: &u64| client.call::<_, u128>("", &Index::new(n));
                        scope.spawn(move || chunk.iter().map(call).collect::<Result<Vec<_>, _>>())
                    })
                    .collect();
                let answers = callers.into_iter().map(|caller| caller.join().unwrap());
                answers.collect::<Result<Vec<_>, _>>()
            });
            transport.close().unwrap();
            Ok(answers?.concat())
        }
        Peer::Script => {
            let arguments: Vec<String> = numbers.iter().map(u64::to_string).collect();
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = run_tutorial_client(queue, &arguments);
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let printed = String::from_utf8(output.stdout).unwrap();
            Ok(printed.lines().map(|line| line.parse().unwrap()).collect())
        }
    }
}

fn expected(numbers: &[u64]) -> Vec<u128> {
    numbers
        .iter()
        .map(|&n| fib(Index::new(n)).unwrap())
        .collect()
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn callers_and_workers_of_all_kinds_understand_each_other() {
    let numbers: Vec<u64> = (0..1000).map(|n| n % 187).collect();
    for worker in PEERS {
        for caller in PEERS {
            let queue = broker::queue("matrix");
            let _worker = Worker::start(worker, &queue);
            let answers = call_all(caller, &queue, &numbers).unwrap();
            assert!(answers == expected(&numbers), "{caller:?} calls {worker:?}");
            println!(
                "{caller:?} calls {worker:?}: {} of {} right",
                answers.len(),
                numbers.len()
            );
        }
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn workers_of_all_kinds_share_one_queue() {
    let queue = broker::queue("shared");
    let workers = PEERS.map(|peer| Worker::start(peer, &queue));
    let numbers: Vec<u64> = (0..2000).map(|n| n % 187).collect();
    assert_eq!(
        call_all(Peer::Lapin, &queue, &numbers).unwrap(),
        expected(&numbers)
    );
    let served: Vec<u64> = workers.iter().map(Worker::served).collect();
    let by_script = numbers.len() as u64 - served.iter().sum::<u64>();
    assert!(
        served[0] > 0 && served[1] > 0 && by_script > 0,
        "{served:?}, script {by_script}"
    );
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_script_that_sends_nonsense_fails_loudly_and_the_worker_lives_on() {
    for worker in [Peer::Lapin, Peer::Amiquip] {
        let queue = broker::queue("nonsense");
        let _worker = Worker::start(worker, &queue);
        for nonsense in ["abc", "-1", "30.0", "", "187", "1e9"] {
            let output = run_tutorial_client(&queue, &[nonsense]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{worker:?} {nonsense:?}: {stderr}"
            );
            assert!(
                stderr.contains("ValueError"),
                "{worker:?} {nonsense:?}: {stderr}"
            );
        }
        let output = run_tutorial_client(&queue, &["30"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "832040");
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_script_that_dies_of_a_request_leaves_it_for_a_worker_of_ours() {
    let queue = broker::queue("handed-on");
    let mut script = Worker::start(Peer::Script, &queue);
    let caller = thread::spawn({
        let queue = queue.clone();
        // No number at all: it kills the script, unacknowledged.
        move || {
            let transport = Arc::new(amiquip());
            let client = blocking::Client::new(Arc::clone(&transport), options(&queue)).unwrap();
            let answer = client.call::<_, u128>("", "not a number");
            transport.close().unwrap();
            answer
        }
    });
    script.wait();
    let _worker = Worker::start(Peer::Lapin, &queue);
    let error = caller.join().unwrap().unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}
