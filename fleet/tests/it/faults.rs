//! Stores that fail, each in its way: the right answer from another replica, or the right error.

use std::time::Duration;

use millrace_fleet::{FleetSource, ServeOptions, SharedToken};
use millrace_model::{PartitionId, QueueId, ShardKey};
use millrace_query::SourceError;

use crate::support::{
    Fault, Store, context, fleet, fleet_with, identity, options, partial, read_all, source, table,
    until,
};

const ALL: [u32; 4] = [0, 1, 2, 3];

fn impatient() -> millrace_fleet::FleetOptions {
    millrace_fleet::FleetOptions {
        first_byte_timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_secs(2),
        ..options()
    }
}

const FAULTS: &[Fault] = &[
    Fault::Hang,
    Fault::Page,
    Fault::Garbage,
    Fault::Cut(0),
    Fault::Cut(30),
    Fault::Cut(30_000),
    Fault::End(0),
    Fault::End(30),
    Fault::End(30_000),
    Fault::HangAfter(30_000),
    Fault::Flip(3),
    Fault::Flip(12),
    Fault::Flip(30_000),
];

#[test]
fn another_replica_answers_for_one_that_fails_in_whatever_way() {
    let table = table(40, 2_000);
    let good = Store::start("good", &table, &ALL);
    let bad = Store::start("bad", &table, &ALL);
    let expect = read_all(&table, &context()).unwrap();
    // So that it is asked first.
    for partition in ALL {
        bad.shards.advance(partition, 500);
    }
    for fault in FAULTS {
        bad.fail(*fault);
        let fleet = fleet(&[&good, &bad], impatient());
        until("both are known", || {
            let stores = fleet.status().stores;
            stores.iter().filter(|s| s.state == "reachable").count() == 2
        });
        let fleet = FleetSource::new(fleet);
        let before = bad.reads();
        let found = read_all(&fleet, &context()).unwrap();
        assert!(found == expect, "{fault:?}");
        assert_eq!(
            bad.reads(),
            before + 1,
            "{fault:?}: the freshest is asked first"
        );
    }
}

#[test]
fn a_store_that_fails_alone_is_an_error_that_names_it_and_never_a_shorter_answer() {
    let table = table(40, 2_000);
    let good = Store::start("good", &table, &[1, 3]);
    let bad = Store::start("bad", &table, &[0, 2]);
    let whole = read_all(&table, &context()).unwrap();
    for fault in FAULTS {
        bad.fail(*fault);
        let fleet = FleetSource::new(fleet(&[&good, &bad], impatient()));
        match read_all(&fleet, &context()) {
            Err(SourceError::Unreachable { partitions, tried }) => {
                assert_eq!(partitions, [PartitionId(0), PartitionId(2)], "{fault:?}");
                assert!(tried.contains(&bad.address), "{fault:?}: {tried}");
                assert!(!tried.contains(&good.address), "{fault:?}: {tried}");
            }
            other => panic!("{fault:?}: {:?}", other.map(|all| all.len())),
        }
        let context = partial();
        let rest = read_all(&fleet, &context).unwrap();
        assert!(!rest.is_empty() && rest.len() < whole.len(), "{fault:?}");
        assert!(
            rest.iter()
                .all(|(labels, samples)| whole[labels] == *samples)
        );
        let warnings = context.warnings().join("; ");
        assert!(
            warnings.contains("partitions 0, 2") && warnings.contains(&bad.address),
            "{fault:?}: {warnings}"
        );
    }
}

#[test]
fn a_slow_store_is_waited_for() {
    let table = table(40, 2_000);
    let store = Store::start("slow", &table, &ALL);
    store.fail(Fault::Slow);
    let found = read_all(&source(&[&store]), &context()).unwrap();
    assert_eq!(found, read_all(&table, &context()).unwrap());
}

#[test]
fn a_store_that_is_gone_is_replaced_and_taken_back() {
    let table = table(10, 10);
    let stores = [
        Store::start("a", &table, &ALL),
        Store::start("b", &table, &ALL),
    ];
    let fleet = fleet(&[&stores[0], &stores[1]], options());
    let source = FleetSource::new(fleet.clone());
    assert_eq!(read_all(&source, &context()).unwrap().len(), 10);
    stores[0].kill();
    stores[1].fail(Fault::Page);
    let error = read_all(&source, &context()).unwrap_err().to_string();
    for store in &stores {
        assert!(error.contains(&store.address), "{error}");
    }
    stores[1].fail(Fault::None);
    until("the second one is asked again", || {
        read_all(&source, &context()).is_ok_and(|found| found.len() == 10)
    });
    let status = fleet.status();
    assert!(status.shards.iter().all(|shard| shard.available));
    let states: Vec<_> = status.stores.iter().map(|store| store.state).collect();
    assert!(states.contains(&"reachable"), "{states:?}");
}

#[test]
fn stores_of_another_queue_are_refused_by_both_sides() {
    let table = table(10, 10);
    let mut other = identity();
    other.id = QueueId(1);
    let mut divided = identity();
    divided.shard_key = ShardKey::new(["x".to_owned()]);
    for wrong in [other, divided] {
        let store = Store::of(
            "other",
            &table,
            &ALL,
            wrong.clone(),
            ServeOptions::default(),
        );
        let error = read_all(&source(&[&store]), &context()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SourceError::Unreachable { .. }), "{text}");
        assert!(
            text.contains("queue") && text.contains(&store.address),
            "{text}"
        );
        assert_eq!(store.reads(), 0);
    }
    let store = Store::start("a", &table, &ALL);
    let url = format!("http://{}/internal/v1/read", store.address);
    let request = |queue: &str, partition: u32, tenant: &str| {
        format!(
            r#"{{"queue":"{queue}","partitions":[{partition}],"tenant":"{tenant}",
            "timeout_ms":1000,"ask":{{"metadata":{{"metric":null}}}}}}"#
        )
    };
    for (request, status, kind) in [
        (request("01", 0, "anonymous"), 409, "foreign_queue"),
        (request("beef", 9, "anonymous"), 421, "not_here"),
        (request("beef", 0, "../x"), 400, "bad_request"),
        ("{".to_owned(), 400, "bad_request"),
    ] {
        let (found, body) = crate::support::runtime().block_on(async {
            let http = crate::support::http();
            let response = http.post(&url).body(request).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
        assert_eq!(found, status, "{body}");
        assert!(body.contains(kind), "{body}");
    }
}

#[test]
fn nobody_known_is_an_error_and_a_warning() {
    let fleet = source(&[]);
    let error = read_all(&fleet, &context()).unwrap_err().to_string();
    assert!(
        error.contains("partitions 0, 1, 2, 3: no store has them"),
        "{error}"
    );
    let context = partial();
    assert!(read_all(&fleet, &context).unwrap().is_empty());
    assert_eq!(context.warnings().len(), 1);
}

#[test]
fn stores_are_shown_the_token_that_holds_at_the_time() {
    let store = Store::start("a", &table(4, 10), &ALL);
    *store.shards.wants.lock() = Some("Bearer first".to_owned());
    let token = SharedToken::default();
    let fleet = fleet_with(&[&store], options(), token.clone());
    let source = FleetSource::new(fleet);
    let unreachable = read_all(&source, &context()).unwrap_err();
    let unreachable = unreachable.to_string();
    assert!(!unreachable.contains("first"), "{unreachable}");
    for new in ["first", "second"] {
        *store.shards.wants.lock() = Some(format!("Bearer {new}"));
        *token.write() = Some(new.to_owned());
        until("the new token is shown", || {
            read_all(&source, &context()).is_ok()
        });
    }
}
