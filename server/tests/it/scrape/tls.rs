//! Targets and discovery services that speak TLS.

use std::collections::BTreeMap;

use super::PATIENCE;
use super::target::{TEXT, Target, ok};
use crate::support::tls::{Pair, serving};
use crate::support::{Millrace, eventually};

/// A job of one target, with its `tls_config`.
fn job(name: &str, target: &str, tls: &str) -> String {
    format!(
        "- {{job_name: {name}, scheme: https, tls_config: {{{tls}}}, static_configs: [{{targets: ['{target}']}}]}}\n"
    )
}

#[test]
fn targets_are_asked_by_tls_as_their_job_says_and_what_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (pair, named, own) = (Pair::new(), Pair::of(&["meter.test"]), Pair::new());
    let (other, _) = Pair::new().write(dir, "other");
    let (ca, _) = pair.write(dir, "ca");
    let (named_ca, _) = named.write(dir, "named");
    let (certificate, key) = own.write(dir, "own");
    let [other, ca, named_ca, certificate, key] =
        [other, ca, named_ca, certificate, key].map(|path| path.display().to_string());

    let page = |_: &super::target::Asked| ok(TEXT, "meter 1\n");
    let plain = Target::start_tls(serving(&pair, None), page);
    let by_name = Target::start_tls(serving(&named, None), page);
    let guarded = Target::start_tls(serving(&pair, Some(&own)), page);
    let groups = format!("[{{\"targets\": [\"{}\"]}}]", plain.address);
    let discovery = Target::start_tls(serving(&pair, Some(&own)), move |asked| {
        match asked.path.as_str() {
            "/groups" => ok("application/json", groups.clone()),
            _ => ok(TEXT, ""),
        }
    });
    let shows = format!("ca_file: '{ca}', cert_file: '{certificate}', key_file: '{key}'");
    let here = |target: &Target| target.address.to_string();
    // By address and by name: the certificate is for both.
    let local = format!("localhost:{}", plain.address.port());
    let good = [
        job("by_file", &here(&plain), &format!("ca_file: '{ca}'")),
        job("by_host", &local, &format!("ca_file: '{ca}'")),
        job("anyone", &here(&plain), "insecure_skip_verify: true"),
        job(
            "anyone_named",
            &here(&by_name),
            "insecure_skip_verify: true",
        ),
        job(
            "by_name",
            &here(&by_name),
            &format!("ca_file: '{named_ca}', server_name: meter.test"),
        ),
        job("shown", &here(&guarded), &shows),
        job(
            "only_1_2",
            &here(&guarded),
            &format!("{shows}, max_version: TLS12"),
        ),
        format!(
            "- {{job_name: found, scheme: https, tls_config: {{ca_file: '{ca}'}}, http_sd_configs: [{{url: \
             'https://{}/groups', tls_config: {{{shows}}}, refresh_interval: 1s}}]}}\n",
            discovery.address
        ),
    ];
    let bad = [
        (
            job("stranger", &here(&plain), &format!("ca_file: '{other}'")),
            "invalid peer certificate",
        ),
        (job("system", &here(&plain), ""), "certificate"),
        (
            job(
                "misnamed",
                &here(&by_name),
                &format!("ca_file: '{named_ca}'"),
            ),
            "certificate not valid for name",
        ),
        (
            job(
                "misled",
                &here(&by_name),
                &format!("ca_file: '{named_ca}', server_name: other.test"),
            ),
            "certificate not valid for name",
        ),
        (
            job(
                "nothing_shown",
                &here(&guarded),
                &format!("ca_file: '{ca}'"),
            ),
            "CertificateRequired",
        ),
    ];
    let mut config =
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    config.extend(good.iter().map(String::as_str));
    config.extend(bad.iter().map(|(job, _)| job.as_str()));
    let path = dir.join("scrape.yml");
    std::fs::write(&path, &config).unwrap();
    let setting = format!("scrape.config_file={}", path.display());
    let millrace = Millrace::start(&dir.join("data"), &[&setting]);
    let client = millrace.client();

    let name = |job: &str| {
        let name = job.split("job_name: ").nth(1).unwrap();
        name.split(',').next().unwrap().to_owned()
    };
    let mut expect: BTreeMap<String, String> =
        good.iter().map(|job| (name(job), String::new())).collect();
    expect.extend(
        bad.iter()
            .map(|(job, error)| (name(job), (*error).to_owned())),
    );
    eventually("all targets as they should be", PATIENCE, || {
        let told = client.get("/api/v1/targets?state=active").json();
        let told = told["data"]["activeTargets"].as_array().unwrap().clone();
        let found: BTreeMap<String, (String, String)> = told
            .iter()
            .map(|target| {
                let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
                (text("scrapePool"), (text("health"), text("lastError")))
            })
            .collect();
        let right = expect.iter().all(|(job, error)| {
            found
                .get(job)
                .is_some_and(|(health, said)| match error.as_str() {
                    "" => health == "up" && said.is_empty(),
                    error => health == "down" && said.contains(error),
                })
        });
        (right && found.len() == expect.len())
            .then_some(())
            .ok_or_else(|| format!("{found:#?}"))
    });
    // And stored, each under its job.
    let stored = super::series(&client, "meter");
    assert_eq!(stored.len(), good.len(), "{stored:?}");
    let (_, log) = millrace.terminate();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}
