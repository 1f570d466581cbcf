//! `millrace queue resume` on a topic. What stops a shard is tested elsewhere; here it is the command.

use crate::support::eventually;
use crate::support::kafka::Cluster;

use super::{PATIENCE, partitions, wait_applied};

#[test]
fn a_shard_skips_what_it_is_told_to_and_the_manifest_says_so() {
    let topic = Cluster::shared().topic("resume").create(1, 1);
    let dir = tempfile::tempdir().unwrap();
    let (all, text) = (dir.path().join("all"), dir.path().join("all"));
    let text = text.to_str().unwrap();
    let push = |server: &crate::support::Millrace, n: u32| {
        let body = format!(r#"{{"device":"a","fields":{{"x{n}":{n}}}}}"#);
        let answer = server.client().post("/api/v1/push", &[], body);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let server = topic.start(&all, &[]);
    push(&server, 1);
    wait_applied(&server.client());
    fn resume<'a>(dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let own = ["queue", "resume", "--data-dir", dir, "--partition", "0"];
        [&own[..], more].concat()
    }
    let locked = topic.fail(&resume(text, &["--from", "end", "--accept-loss"]));
    assert!(locked.contains("in use by another millrace"), "{locked}");
    server.terminate();
    // While the store is away, two records arrive.
    let ingest = topic.start(&dir.path().join("ingest"), &["roles=ingest"]);
    push(&ingest, 2);
    push(&ingest, 3);
    ingest.terminate();
    let beyond = topic.fail(&resume(text, &["--from", "9", "--accept-loss"]));
    assert!(
        beyond.contains("the queue has the offsets 0 to 3 of partition 0, not 9"),
        "{beyond}"
    );
    let said = topic.succeed(&resume(
        text,
        &["--from", "2", "--accept-loss", "--accept-dead-letters"],
    ));
    assert!(
        said.contains("its dead letters so far are accepted"),
        "{said}"
    );
    assert!(
        said.contains("was at offset 1 of queue") && said.contains("goes on at offset 2"),
        "{said}"
    );

    let server = topic.start(&all, &[]);
    let client = server.client();
    wait_applied(&client);
    let found = |metric: &str| {
        client.query(metric, None)["result"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(["x1", "x2", "x3"].map(found), [1, 0, 1]);
    assert_eq!(partitions(&client)[0]["gaps"][0]["to_offset"], 2);
    server.terminate();
    // `oldest` brings it back, and what was there stays as it was.
    topic.succeed(&resume(text, &["--from", "oldest", "--accept-loss"]));
    let server = topic.start(&all, &[]);
    let client = server.client();
    eventually("what was passed over", PATIENCE, || {
        let found =
            ["x1", "x2", "x3"].map(|m| client.query(m, None)["result"].as_array().unwrap().len());
        (found == [1, 1, 1])
            .then_some(())
            .ok_or(format!("{found:?}"))
    });
}
