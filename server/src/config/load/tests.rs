use std::path::Path;

use millrace_log::fs::OsFs;

use super::*;

fn with_file(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("millrace.toml");
    #[expect(clippy::disallowed_methods, reason = "a fixture, not data")]
    std::fs::write(&path, text).unwrap();
    let layers = Layers {
        file: Some(path.clone()),
        environment: environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        flags: flags
            .iter()
            .map(|(k, v)| ("--set", (*k).to_owned(), (*v).to_owned()))
            .collect(),
    };
    load(&OsFs, &layers).map_err(|error| {
        error
            .to_string()
            .replace(&*path.to_string_lossy(), "millrace.toml")
    })
}

#[test]
fn every_default_is_of_its_type_and_keeps_the_rules() {
    let config = load(&OsFs, &Layers::default()).unwrap();
    assert_eq!(config.top.listen.port(), 9009);
    for setting in SETTINGS {
        assert_eq!(config.origin(setting.key), Origin::Default);
        assert!(setting.doc.trim().ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn flags_win_over_environment_and_that_over_the_file() {
    let file = "[ingest]\nmax_age = \"1d\"\nmax_ahead = \"1m\"\n[queue]\npartitions = 3\n";
    let environment = [
        ("MILLRACE_INGEST_MAX_AGE", "2d"),
        ("MILLRACE_QUEUE_PARTITIONS", "2"),
    ];
    let config = with_file(file, &environment, &[("queue.partitions", "1")]).unwrap();
    assert_eq!(config.queue.partitions.or(9), 1);
    assert_eq!(config.origin("queue.partitions"), Origin::Flag("--set"));
    assert_eq!(config.ingest.max_age.unwrap().as_secs(), 2 * 86_400);
    assert_eq!(
        config.origin("ingest.max_age"),
        Origin::Environment("MILLRACE_INGEST_MAX_AGE".to_owned())
    );
    assert_eq!(config.ingest.max_ahead.unwrap().as_secs(), 60);
    assert!(matches!(
        config.origin("ingest.max_ahead"),
        Origin::File {
            line: 3,
            column: 1,
            ..
        }
    ));
    assert_eq!(config.origin("listen"), Origin::Default);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, expect) in [
        ("listen = \n", "millrace.toml:1:10: "),
        (
            "[ingest]\n  max_agee = \"1d\"\n",
            "millrace.toml:2:3: there is no setting \"ingest.max_agee\", did you mean \"ingest.max_age\"?",
        ),
        ("max_age = \"1d\"", "did you mean \"ingest.max_age\"?"),
        (
            "[ingset]\nmax_age = \"1d\"",
            "millrace.toml:1:2: there is no setting \"ingset\"",
        ),
        (
            "colour = \"red\"",
            "there is no setting \"colour\"; `millrace config` lists",
        ),
        (
            "[ingest]\nmax_age = 30\n",
            "millrace.toml:2:1: ingest.max_age = 30: must be a duration with its unit",
        ),
        ("ingest = 3", "there is no setting \"ingest\""),
        (
            "listen = 1979-05-27",
            "listen = 1979-05-27: no setting has a value of this type",
        ),
        (
            "listen = \"nowhere\"",
            "listen = \"nowhere\": must be an IP address and a port",
        ),
        (
            "listen = \"0.0.0.0:9009\"",
            "listen = \"0.0.0.0:9009\" (millrace.toml:1:1): others can reach this address",
        ),
        (
            "[queue]\npartitions = 1000000",
            "queue.partitions = 1000000 (millrace.toml:2:1): must be from 1 to",
        ),
        (
            "[ingest.limits]\ndecoded_bytes = \"1MiB\"",
            "ingest.limits.decoded_bytes = \"1MiB\" (millrace.toml:2:1): must not be less than ingest.limits.body_bytes",
        ),
    ] {
        let error = with_file(text, &[], &[]).unwrap_err();
        assert!(
            error.contains(expect),
            "{text:?}\n gives {error}\n  want {expect}"
        );
        assert!(!error.contains('\n'), "one line: {error}");
    }
}

#[test]
fn environment_and_flags_are_checked_alike() {
    let error = with_file("", &[("MILLRACE_LOG_FORMAT", "xml")], &[]).unwrap_err();
    assert!(error.starts_with("environment variable MILLRACE_LOG_FORMAT: log.format = \"xml\""));
    let error = with_file("", &[], &[("log.fromat", "json")]).unwrap_err();
    assert!(
        error.contains(
            "flag --set: there is no setting \"log.fromat\", did you mean \"log.format\"?"
        )
    );
    let config = with_file(
        "",
        &[("MILLRACE_PORT", "tcp://1.2.3.4"), ("HOME", "/")],
        &[],
    )
    .unwrap();
    assert_eq!(config.ignored_variables(), ["MILLRACE_PORT"]);
}

#[test]
fn a_missing_file_is_named() {
    let layers = Layers {
        file: Some(Path::new("/nowhere/m.toml").into()),
        ..Layers::default()
    };
    let error = load(&OsFs, &layers).unwrap_err().to_string();
    assert!(
        error.starts_with("config file \"/nowhere/m.toml\" cannot be read"),
        "{error}"
    );
}

#[test]
fn no_two_settings_share_a_variable() {
    let mut names: Vec<_> = SETTINGS.iter().map(|s| s.variable()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), SETTINGS.len());
}
