//! Reading after a position, with replicas that are not equally far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_fleet::{FleetFreshness, FleetSource};
use millrace_model::{Offset, PartitionId, QueueId};
use millrace_query::api::{Freshness as _, FreshnessError};
use millrace_query::{ReadContext, ReadPoint, SourceError};
use millrace_queue::Position;

use crate::support::{Store, context, fleet, identity, options, read_all, table, until};

const ALL: [u32; 4] = [0, 1, 2, 3];
const LONG: Duration = Duration::from_secs(60);

fn position(offset: u64) -> String {
    let mut position = Position::new(identity().id);
    position.advance(PartitionId(1), Offset(offset));
    position.to_string()
}

fn after(offset: u64) -> Arc<ReadContext> {
    let point = ReadPoint::after(position(offset));
    Arc::new(ReadContext::default().at(Arc::new(point)))
}

#[test]
fn a_read_after_a_position_asks_only_replicas_that_have_it() {
    let table = table(10, 10);
    let stale = Store::start("stale", &table, &ALL);
    let fresh = Store::start("fresh", &table, &ALL);
    // Not far enough ahead for ordinary reads to move.
    fresh.shards.advance(1, 110);
    let fleet = fleet(&[&stale, &fresh], options());
    let (source, freshness) = (
        FleetSource::new(fleet.clone()),
        FleetFreshness::new(fleet.clone()),
    );
    until("both are known", || {
        fleet.status().shards[1]
            .replicas
            .iter()
            .filter(|r| r.reachable)
            .count()
            == 2
    });
    assert_eq!(freshness.wait(&position(110), Duration::ZERO), Ok(()));
    for _ in 0..5 {
        let context = after(110);
        assert_eq!(read_all(&source, &context).unwrap().len(), 10);
        assert_eq!(context.point.included()[&PartitionId(1)], Offset(110));
        let told = freshness.included(&context.point).unwrap();
        assert!(told.contains("1:110"), "{told}");
    }
    // The one that has it is gone: the other one must not answer.
    fresh.kill();
    let error = read_all(&source, &after(110)).unwrap_err();
    match &error {
        SourceError::Unreachable { partitions, tried } => {
            assert_eq!(partitions, &[PartitionId(1)]);
            assert!(tried.contains("behind"), "{tried}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(read_all(&source, &context()).unwrap().len(), 10);
    stale.shards.advance(1, 110);
    assert_eq!(read_all(&source, &after(110)).unwrap().len(), 10);
}

#[test]
fn a_wait_ends_when_any_replica_has_applied_the_position() {
    let table = table(10, 10);
    let stores = [
        Store::start("a", &table, &ALL),
        Store::start("b", &table, &ALL),
    ];
    let fleet = fleet(&[&stores[0], &stores[1]], options());
    let freshness = FleetFreshness::new(fleet);
    let waiting = std::thread::spawn({
        let freshness = freshness.clone();
        move || freshness.wait(&position(150), LONG)
    });
    until("nobody has it yet", || {
        matches!(
            freshness.wait(&position(150), Duration::ZERO),
            Err(FreshnessError::NotReached { reason, .. }) if reason.contains("stands at 100")
        )
    });
    stores[1].shards.advance(1, 150);
    assert_eq!(waiting.join().unwrap(), Ok(()));
    // A status that was asked for before may come in after it.
    until("it is told", || {
        freshness.wait(&position(150), Duration::ZERO) == Ok(())
    });
}

#[test]
fn a_wait_in_vain_says_how_far_the_stores_are() {
    let table = table(1, 1);
    let store = Store::start("a", &table, &[1]);
    let freshness = FleetFreshness::new(fleet(&[&store], options()));
    let begun = Instant::now();
    let error = freshness.wait(&position(101), Duration::from_millis(300));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    match error {
        Err(FreshnessError::NotReached { reason, .. }) => {
            assert!(reason.contains("partition 1"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn positions_of_another_queue_are_malformed() {
    let table = table(1, 1);
    let store = Store::start("a", &table, &ALL);
    let freshness = FleetFreshness::new(fleet(&[&store], options()));
    let other = Position::new(QueueId(9)).to_string();
    let mut beyond = Position::new(identity().id);
    beyond.advance(PartitionId(99), Offset(1));
    for text in ["x", &other, &beyond.to_string()] {
        let waited = freshness.wait(text, LONG);
        assert!(
            matches!(waited, Err(FreshnessError::Malformed { .. })),
            "{waited:?}"
        );
    }
    assert_eq!(freshness.as_of(), None);
}
