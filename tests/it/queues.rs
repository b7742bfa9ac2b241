//! What RabbitMQ says of a queue that is there and differs.

use rpc_core::{ErrorKind, QueueSpec};

use crate::{broker, rows};

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_conflict_names_the_argument_that_differs_on_every_row() {
    for (row, backend) in rows::on_rabbitmq(&broker::url()) {
        let connection = backend.connect().unwrap();
        let quorum = QueueSpec::quorum(broker::queue("conflict"));
        let durable = QueueSpec::durable(broker::queue("conflict"));
        for (spec, differing, argument) in [
            (&quorum, quorum.clone().with_max_length(7), "x-max-length"),
            (
                &quorum,
                quorum.clone().with_delivery_limit(7),
                "x-delivery-limit",
            ),
            (
                &quorum,
                quorum.clone().without_dead_letter(),
                "x-dead-letter-exchange",
            ),
            (
                &durable,
                QueueSpec::transient(durable.name.clone()),
                "auto_delete",
            ),
            (&durable, durable.clone().with_max_length(7), "x-max-length"),
        ] {
            connection.declare(spec).unwrap();
            let error = connection.declare(&differing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{row}: {error:?}");
            let named = error.conflicting_argument();
            assert_eq!(named, Some(argument), "{row}: {error:?}");
            assert!(error.to_string().contains(argument), "{row}: {error}");
        }
    }
}
