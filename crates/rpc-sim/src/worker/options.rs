//! What a worker of this world promises, and the queues it needs for that.

use std::sync::Arc;

use rpc_proto::server::{Admission, Guarantee, MemoryDedup, Policy, Quarantine};

use super::{DEAD, QUARANTINE, QUEUE};
use crate::conn::{Declare, Open};
use crate::setting::Setting;

pub(super) fn policy(setting: &Setting) -> Policy {
    let mut policy = Policy::new(QUEUE);
    policy.guarantee = if setting.at_most_once {
        Guarantee::AtMostOnce
    } else {
        Guarantee::AtLeastOnce
    };
    policy.admission = setting.admission.then(Admission::default);
    if setting.dedup {
        policy.dedup = Some(Arc::new(MemoryDedup::default()));
    }
    policy.quarantine = setting
        .quarantine
        .map(|limit| Quarantine::new(QUARANTINE, limit));
    policy
}

pub(super) fn topology(setting: &Setting) -> Open {
    let work = Declare {
        durable: setting.durable,
        auto_delete: !setting.durable,
        counts: setting.quorum,
        delivery_limit: setting.quorum.then_some(setting.delivery_limit),
        max_length: setting.max_length,
        dead_letter: setting.durable.then_some(DEAD),
        ..Declare::durable(QUEUE)
    };
    let quarantine = Declare {
        counts: setting.quorum,
        // Where the broker gives up first, the caller is not told.
        delivery_limit: setting
            .quarantine
            .filter(|_| setting.quorum)
            .map(|limit| limit + setting.delivery_limit),
        max_length: setting.max_length,
        dead_letter: Some(DEAD),
        ..Declare::durable(QUARANTINE)
    };
    let mut open = Open {
        declare: vec![work, Declare::durable(DEAD)],
        consume: vec![(QUEUE, setting.prefetch)],
    };
    if setting.quarantine.is_some() {
        open.declare.push(quarantine);
        open.consume.push((QUARANTINE, 1));
    }
    open
}
