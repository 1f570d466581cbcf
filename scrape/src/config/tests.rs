use super::*;
use millrace_log::fs::{OsFs, publish};

fn read(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scrape.yml");
    publish(&OsFs, &path, text.as_bytes()).unwrap();
    publish(
        &OsFs,
        &dir.path().join("more-1.yml"),
        b"scrape_configs:\n- job_name: more\n",
    )
    .unwrap();
    Config::read(&OsFs, &path).map_err(|error| error.to_string())
}

#[test]
fn jobs_take_from_global_what_they_do_not_say() {
    let config = read(
        "global: {scrape_interval: 15s, scrape_timeout: 5s, sample_limit: 7, body_size_limit: 1MB, \
         external_labels: {a: b}, evaluation_interval: 1m}\n\
         rule_files: [x.yml]\n\
         scrape_config_files: ['more-*.yml']\n\
         scrape_configs:\n\
         - job_name: b\n  scrape_interval: 2s\n  sample_limit: 9\n  honor_labels: true\n\
         - job_name: a\n  scrape_protocols: [PrometheusProto, PrometheusText0.0.4]\n  \
           static_configs: [{targets: ['x:1', 'y:2'], labels: {env: prod}}]\n  \
           file_sd_configs: [{files: [targets/*.json]}]\n  \
           bearer_token_file: token\n  scrape_classic_histograms: true\n",
    )
    .unwrap();
    let names: Vec<_> = config
        .jobs
        .iter()
        .map(|job| job.name().to_owned())
        .collect();
    assert_eq!(names, ["a", "b", "more"]);
    assert_eq!(config.ignored, ["rule_files", "global.external_labels"]);
    let (a, b) = (&config.jobs[0], &config.jobs[1]);
    assert_eq!(
        (a.interval.to_string(), a.timeout.to_string()),
        ("15s".into(), "5s".into())
    );
    // A timeout that is not given is never longer than the interval.
    assert_eq!(
        (b.interval.to_string(), b.timeout.to_string()),
        ("2s".into(), "2s".into())
    );
    assert_eq!((a.limits.samples, b.limits.samples), (7, 9));
    assert_eq!(a.limits.body_size, 1 << 20);
    assert_eq!(a.protocols, [Protocol::PrometheusText004]);
    assert_eq!(a.discoveries.len(), 2);
    let token = a
        .http
        .authorization
        .as_ref()
        .unwrap()
        .credentials_file
        .as_ref()
        .unwrap();
    assert!(token.is_absolute(), "{token:?}");
    assert!(b.yaml.honor_labels && b.yaml.honor_timestamps);
}

#[test]
fn the_empty_file_has_no_jobs() {
    assert_eq!(read("").unwrap().jobs(), 0);
    assert_eq!(read("# nothing\n").unwrap().jobs(), 0);
}

#[test]
fn intervals_and_timeouts_that_are_not_given_fit_each_other() {
    for (global, job, interval, timeout) in [
        ("", "", "1m", "10s"),
        ("scrape_interval: 5s", "", "5s", "5s"),
        ("scrape_interval: 0", "", "1m", "10s"),
        ("scrape_interval: 0, scrape_timeout: 0", "", "1m", "10s"),
        ("scrape_timeout: 20s", "", "1m", "20s"),
        ("scrape_interval: 5s", "scrape_interval: 30s", "30s", "5s"),
        ("scrape_interval: 30s", "scrape_interval: 2s", "2s", "2s"),
        (
            "scrape_interval: 30s",
            "scrape_interval: 0, scrape_timeout: 0",
            "30s",
            "10s",
        ),
    ] {
        let text = format!("global: {{{global}}}\nscrape_configs: [{{job_name: j, {job}}}]\n");
        let config = read(&text).unwrap();
        let job = &config.jobs[0];
        let found = (job.interval.to_string(), job.timeout.to_string());
        assert_eq!(found, (interval.to_owned(), timeout.to_owned()), "{text}");
    }
}

#[test]
fn a_limit_of_zero_in_a_job_is_the_global_one() {
    let config = read(
        "global: {body_size_limit: 1MB, sample_limit: 5}\n\
         scrape_configs: [{job_name: j, body_size_limit: 0, sample_limit: 0}]\n",
    )
    .unwrap();
    let limits = config.jobs[0].limits;
    assert_eq!((limits.body_size, limits.samples), (1 << 20, 5));
}

#[test]
fn sections_with_nothing_in_them_are_empty() {
    for text in [
        "---\n",
        "global:\n",
        "scrape_configs:\n# - job_name: j\n",
        "scrape_config_files:\n",
    ] {
        assert_eq!(read(text).unwrap().jobs(), 0, "{text}");
    }
    let config = read(
        "scrape_configs:\n- job_name: j\n  params:\n  tls_config:\n  http_headers:\n  \
         file_sd_configs:\n  http_sd_configs:\n  dns_sd_configs:\n  relabel_configs:\n  \
         metric_relabel_configs:\n  static_configs:\n  - targets:\n    # - a:1\n    labels:\n",
    )
    .unwrap();
    assert_eq!(config.jobs[0].yaml.static_configs, [StaticGroup::default()]);
}

#[test]
fn errors_name_file_job_field_and_rule() {
    let job = |rest: &str| format!("scrape_configs:\n- job_name: j\n{rest}");
    for (text, says) in [
        (
            job("  scrape_intervall: 1s\n"),
            "line 3, column 3: field scrape_intervall not found",
        ),
        (
            job("  consul_sd_configs: []\n"),
            "consul_sd_configs is not supported yet",
        ),
        (
            job("  kubernetes_sd_configs: []\n"),
            "kubernetes_sd_configs is not supported yet",
        ),
        (
            job("  docker_sd_configs: []\n"),
            "docker_sd_configs is not supported yet",
        ),
        (
            job("  proxy_url: http://x\n"),
            "field proxy_url is not supported yet",
        ),
        (job("  oauth2: {}\n"), "field oauth2 is not supported yet"),
        (
            job("  scrape_interval: soon\n"),
            "not a valid duration string: \"soon\"",
        ),
        (
            job("  scrape_timeout: 2m\n"),
            "job \"j\", scrape_timeout: scrape timeout greater",
        ),
        (job("  scheme: ftp\n"), "job \"j\", scheme: "),
        (job("- job_name: j\n"), "job \"j\": there are several"),
        (
            "scrape_configs:\n- metrics_path: /x\n".to_owned(),
            "job 1: job_name is empty",
        ),
        (
            job("  static_configs: [{targets: ['a'], labels: {x: y}}, {targets: ['http://a']}]\n"),
            "job \"j\", static_configs, group 2: \"http://a\" is not a valid hostname",
        ),
        (
            job("  relabel_configs: [{action: keep}, {action: hashmod, target_label: x}]\n"),
            "job \"j\", relabel_configs, rule 2: modulus: ",
        ),
        (
            job("  metric_relabel_configs: [{source_labels: [a], regex: '('}]\n"),
            "job \"j\", metric_relabel_configs, rule 1: ",
        ),
        (
            job("  relabel_configs: [{action: explode}]\n"),
            "unknown relabel action \"explode\"",
        ),
        (
            job("  basic_auth: {username: a}\n  authorization: {credentials: b}\n"),
            "job \"j\", basic_auth: at most one of",
        ),
        (
            job("  basic_auth: {username: a, password: b, password_file: c}\n"),
            "job \"j\", basic_auth.password: at most one",
        ),
        (
            job("  authorization: {type: Basic}\n"),
            "job \"j\", authorization.type: ",
        ),
        (
            job("  tls_config: {cert_file: x}\n"),
            "job \"j\", tls_config: ",
        ),
        (job("  tls_config: {min_version: TLS10}\n"), "TLS10"),
        (
            job("  http_headers: {Host: {values: [x]}}\n"),
            "job \"j\", http_headers: ",
        ),
        (
            job("  file_sd_configs: [{files: ['a/*/b.json']}]\n"),
            "job \"j\", file_sd_configs: ",
        ),
        (
            job("  file_sd_configs: [{files: ['a.txt']}]\n"),
            "job \"j\", file_sd_configs: ",
        ),
        (
            job("  http_sd_configs: [{url: 'ftp://x'}]\n"),
            "job \"j\", http_sd_configs: ",
        ),
        (
            job("  dns_sd_configs: [{names: [a], type: A}]\n"),
            "job \"j\", dns_sd_configs: a port",
        ),
        (
            job("  dns_sd_configs: [{names: [a], type: MX}]\n"),
            "\"MX\" are not supported",
        ),
        (
            job("  scrape_protocols: [PrometheusProto]\n"),
            "job \"j\", scrape_protocols: ",
        ),
        (
            "global: {scrape_interval: 5s, scrape_timeout: 6s}\n".to_owned(),
            "global scrape timeout greater",
        ),
        ("scrape_configs: {\n".to_owned(), "line "),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains("scrape.yml: "), "{text}: {error}");
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = read(
        "scrape_configs:\n- job_name: j\n  basic_auth: {username: me, password: hush}\n  \
         http_headers: {X-Key: {secrets: [hush], values: [seen]}}\n  tls_config: {cert: c, key: hush}\n",
    )
    .unwrap();
    let job = &config.jobs[0];
    let shown = serde_saphyr::to_string(&job.yaml).unwrap();
    assert!(
        shown.contains("<secret>") && shown.contains("seen"),
        "{shown}"
    );
    for text in [shown, format!("{config:?}")] {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn what_is_shown_of_a_job_reads_back_to_it() {
    let config = read(
        "scrape_configs:\n- job_name: j\n  params: {a: [b]}\n  sample_limit: 5\n  \
         static_configs: [{targets: ['x:1']}]\n  relabel_configs: [{action: labeldrop, regex: x.*}]\n",
    )
    .unwrap();
    let job = &config.jobs[0];
    let shown = serde_saphyr::to_string(&job.yaml).unwrap();
    let again: yaml::JobYaml = parse(Path::new("shown"), &shown).unwrap();
    assert_eq!(again, job.yaml, "{shown}");
}

#[test]
fn rules_for_pushed_series_are_a_list_or_stand_under_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relabel.yml");
    let rules = |text: &str| {
        publish(&OsFs, &path, text.as_bytes()).unwrap();
        PushRelabel::read(&OsFs, &path).map_err(|error| error.to_string())
    };
    let list = "- {source_labels: [__name__], regex: go_.*, action: drop}\n";
    assert_eq!(rules(list).unwrap().configs().len(), 1);
    let wrapped = rules(&format!("relabel_configs:\n{list}")).unwrap();
    assert_eq!(wrapped.configs().len(), 1);
    for text in ["", "# - {action: drop}\n", "relabel_configs:\n# nothing\n"] {
        assert!(rules(text).unwrap().is_empty(), "{text}");
    }
    let error = rules("- {action: hashmod}\n").unwrap_err();
    assert!(
        error.contains("relabel.yml: rule 1: target_label"),
        "{error}"
    );
    let error = rules("- {actions: drop}\n").unwrap_err();
    assert!(error.contains("field actions not found"), "{error}");
}
