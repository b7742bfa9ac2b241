//! What the configuration of every transport to RabbitMQ lets its user choose.

/// Whether the broker is asked to confirm each publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Confirms {
    /// Every publish gets the broker's verdict, and a message that reaches no queue is known in one
    /// round trip.
    #[default]
    On,
    /// Every publish counts as confirmed once it was handed over. A message that reaches no queue, or
    /// that a full queue refuses, is lost without a word, and its caller learns it by timeout. So is
    /// what was handed over just before the transport was closed, where the library sends its goodbye
    /// ahead of it.
    Off,
}

/// With which brokers direct reply-to may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DirectReplyTo {
    /// Those that are known to survive an address which is no longer valid.
    #[default]
    WhereSafe,
    /// All, also one with the defect: for where no peer outlives a node of the broker.
    Forced,
}
