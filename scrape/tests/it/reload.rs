//! What a reload changes, and what it leaves alone.

use millrace_queue::AppenderOptions;

use crate::rig::{Reply, Rig, Target, eventually, write};

fn job(name: &str, target: &Target, more: &str) -> String {
    let address = target.address;
    format!(
        "- job_name: {name}\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  \
         static_configs: [{{targets: ['{address}']}}]\n{more}"
    )
}

#[tokio::test]
async fn jobs_that_are_the_same_keep_their_loops_and_connections() {
    let a = Target::start(Reply::Text("a 1\n")).await;
    let b = Target::start(Reply::Text("b 1\n")).await;
    let config = |b_more: &str| {
        let (a, b) = (job("a", &a, ""), job("b", &b, b_more));
        format!("scrape_configs:\n{a}{b}")
    };
    let rig = Rig::start(&config(""));
    let scraped = |target: &Target, times: usize| target.asked().len() >= times;
    eventually("both are scraped", || scraped(&a, 2) && scraped(&b, 2)).await;
    // On a slow machine one may have been cut by its timeout, and been asked anew.
    let (of_a, of_b) = (a.connections(), b.connections());
    rig.reload(&config("  honor_labels: true\n")).unwrap();
    eventually("the changed one has a new loop", || b.connections() > of_b).await;
    let before = a.asked().len();
    eventually("the other goes on", || scraped(&a, before + 3)).await;
    if rig.metric("millrace_scrape_scrapes_total", Some("down")) == 0.0 {
        assert_eq!(a.connections(), of_a);
    }
    let failed = rig.reload("scrape_configs: [{}]").unwrap_err();
    assert!(failed.to_string().contains("job_name"), "{failed}");
    let before = b.asked().len();
    eventually("nothing has changed", || scraped(&b, before + 2)).await;
    assert_eq!(rig.scraper.pools(), ["a", "b"]);
}

#[tokio::test]
async fn other_certificates_in_the_same_file_are_taken() {
    let target = Target::start(Reply::Text("a 1\n")).await;
    let certificate = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        made.unwrap().cert.pem()
    };
    let config = job("j", &target, "  tls_config: {ca_file: ca.pem}\n");
    let config = format!("scrape_configs:\n{config}");
    let queue = crate::lost::HeldQueue::new();
    let files = [("ca.pem", &*certificate())];
    let rig = Rig::on(queue, &config, AppenderOptions::default(), &files);
    // Its first scrape never becomes durable, so that its loop asks no second time.
    eventually("it is scraped", || target.asked().len() == 1).await;
    rig.scraper.reload().unwrap();
    write(&rig.path("ca.pem"), &certificate());
    rig.scraper.reload().unwrap();
    eventually("it has another loop", || target.asked().len() == 2).await;
    write(&rig.path("ca.pem"), "nothing");
    let failed = rig.scraper.reload().unwrap_err().to_string();
    assert!(failed.contains("job \"j\": tls_config.ca: "), "{failed}");
    assert_eq!(target.connections(), 2, "one for each of the certificates");
}

#[tokio::test]
async fn the_files_of_a_discovery_are_looked_at_before_anything_is_changed() {
    let rig = Rig::start("");
    let discovery =
        "  http_sd_configs: [{url: 'https://localhost', tls_config: {ca_file: none.pem}}]\n";
    let failed = rig.reload(&format!("scrape_configs:\n- job_name: j\n{discovery}"));
    let failed = failed.unwrap_err().to_string();
    for words in ["job \"j\": http_sd_configs: ", "none.pem"] {
        assert!(failed.contains(words), "{failed}");
    }
    assert!(rig.scraper.pools().is_empty());
}

#[tokio::test]
async fn a_scrape_in_hand_is_stored_though_its_job_is_changed() {
    let target = Target::start(Reply::Wait).await;
    let config = |more: &str| {
        let address = target.address;
        format!(
            "scrape_configs:\n- job_name: j\n  scrape_interval: 5s\n  scrape_timeout: 5s\n  \
             static_configs: [{{targets: ['{address}']}}]\n{more}"
        )
    };
    let rig = Rig::start(&config(""));
    eventually("it is asked", || target.asked().len() == 1).await;
    // Whoever comes after it gets no answer.
    rig.reload(&config("  http_headers: {x-reply: {values: [nothing]}}\n"))
        .unwrap();
    target.set("/metrics", Reply::Text("a 1\n"));
    let up = || rig.metric("millrace_scrape_scrapes_total", Some("up"));
    eventually("it is stored", || up() == 1.0).await;
    assert_eq!(rig.metric("millrace_scrape_lost_total", None), 0.0);
}
