//! Workers are processes of their own, so that their processor time can be told from the caller's.
//!
//! A worker says a line when it is ready, answers each line with its count of allocations, and ends
//! with its standard input, so that it does not outlive its caller however that ends.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use amqp_broker::AmqpUrl;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::cell::Cell;
use crate::program::{Allocations, URL_VARIABLE};
use crate::roles;

/// The role of a worker.
pub(crate) fn run(url: &AmqpUrl, cell: &Cell, allocations: Option<Allocations>) -> Result<()> {
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            say(allocations.map_or(0, |count| count()));
        }
        std::process::exit(0);
    });
    roles::work(url, cell, || say(0))
}

fn say(number: u64) {
    let mut stdout = io::stdout().lock();
    // A caller that went away is noticed by the end of the input.
    let _ = writeln!(stdout, "{number}").and_then(|()| stdout.flush());
}

/// A worker, as its caller sees it. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one, and waits until it is ready.
    pub(crate) fn start(url: &str, cell: &Cell) -> Result<Self> {
        let what = cell.what.to_possible_value();
        let mut command = Command::new(env::current_exe()?);
        command
            .arg("work")
            .args(["--what", what.as_ref().map_or("", |what| what.get_name())])
            .args(["--prefetch", &cell.prefetch.to_string()])
            .args(["--queue", &cell.queue])
            .env(URL_VARIABLE, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if cell.confirms {
            command.arg("--confirms");
        }
        let mut process = command.spawn().context("cannot start a worker")?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().context("a worker without output")?;
        let mut worker = Self {
            process,
            orders,
            answers: BufReader::new(answers),
        };
        worker.answer().context("a worker did not get ready")?;
        Ok(worker)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How many allocations it has made so far, if it counts them.
    pub(crate) fn allocations(&mut self) -> Result<u64> {
        let orders = self.orders.as_mut().context("a worker that was ended")?;
        writeln!(orders, "count")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the worker ended");
        Ok(line.trim().parse()?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It reads the end of its input at once, whatever it is doing.
        let _ = self.process.wait();
    }
}
