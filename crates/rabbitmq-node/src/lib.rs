//! Private, throw-away RabbitMQ nodes for tests, benches and development.
//!
//! A [`Node`] is a real broker in a directory of its own, on ports of its own, with a cookie and a
//! name server of its own.
//! It listens on 127.0.0.1 only and may be killed, frozen and restarted at will: no broker that
//! the machine already runs can tell that it exists.
//! It needs the RabbitMQ server to be installed, but neither root nor a service manager.
//!
//! ```no_run
//! # fn main() -> rabbitmq_node::Result<()> {
//! let mut node = rabbitmq_node::Node::builder().config("frame_max = 8192").start()?;
//! println!("{}", node.url());
//! node.kill()?;
//! node.restart()?;
//! node.ctl(&["list_queues"])?;
//! # Ok(())
//! # }
//! ```
//!
//! What lives how long: a node dies with the `Node` that owns it, and also with the process that
//! owns it, however that ends.
//! [`Node::detach`] lifts both bonds, and [`Node::attach`] finds such a node again.
//!
//! Installing RabbitMQ is not done here, nor is anything spoken to the broker beyond the first
//! frame of a connection.

mod builder;
mod cluster;
mod epmd;
mod error;
mod installation;
mod node;
mod ports;
mod process;
mod ready;
mod settings;
mod state;
mod watchdog;

pub use crate::builder::Builder;
pub use crate::cluster::Cluster;
pub use crate::error::{Error, Result};
pub use crate::installation::Installation;
pub use crate::node::Node;
