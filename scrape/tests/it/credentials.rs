//! Where a redirect leads, and what proves who we are does not follow.

use crate::rig::{Asked, Reply, Rig, Target, eventually};

/// What a request shows: the password, the secret header, the plain one.
fn shown(asked: &Asked) -> [bool; 3] {
    ["authorization", "x-secret", "x-plain"].map(|name| asked.headers.contains_key(name))
}

fn config(target: &Target, more: &str) -> String {
    let address = target.address;
    format!(
        "scrape_configs:\n- job_name: j\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  \
         basic_auth: {{username: me, password: hush}}\n  \
         http_headers: {{x-secret: {{secrets: [hush]}}, x-plain: {{values: [seen]}}}}\n  \
         static_configs: [{{targets: ['{address}']}}]\n{more}"
    )
}

#[tokio::test]
async fn they_go_to_the_origin_that_they_are_for_and_to_no_other() {
    // The same host, and another port.
    let other = Target::start(Reply::Text("a 1\n")).await;
    let elsewhere = format!("http://{}/metrics", other.address);
    let target = Target::start(Reply::Redirect("/moved".to_owned())).await;
    target.set("/moved", Reply::Redirect(elsewhere));
    let rig = Rig::start(&config(&target, ""));
    let up = || rig.metric("millrace_scrape_scrapes_total", Some("up"));
    eventually("it is scraped", || up() >= 1.0).await;
    for asked in target.asked() {
        assert_eq!(shown(&asked), [true; 3], "{}", asked.path);
    }
    assert!(target.asked().iter().any(|asked| asked.path == "/moved"));
    for asked in other.asked() {
        assert_eq!(shown(&asked), [false, false, true]);
    }
}

#[tokio::test]
async fn redirects_are_not_followed_where_that_is_not_wanted() {
    let target = Target::start(Reply::Redirect("/moved".to_owned())).await;
    target.set("/moved", Reply::Text("a 1\n"));
    let rig = Rig::start(&config(&target, "  follow_redirects: false\n"));
    let says = "server returned HTTP status 302 Found";
    eventually("it is down", || rig.errors() == [says]).await;
    assert!(target.asked().iter().all(|asked| asked.path == "/metrics"));
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let target = Target::start(Reply::Redirect("/metrics".to_owned())).await;
    let rig = Rig::start(&config(&target, ""));
    let ends = |error: &String| error.ends_with("stopped after 10 redirects");
    eventually("it is down", || rig.errors().iter().any(ends)).await;
}
