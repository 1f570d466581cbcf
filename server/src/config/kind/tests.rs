use super::*;

fn check<T: Kind>(raw: Raw, expect: &str) {
    match T::read(&raw) {
        Ok(value) => {
            let toml = value.to_toml();
            assert_eq!(toml, expect, "{raw}");
            let parsed: toml::Table = format!("v = {toml}").parse().expect("TOML");
            let again = match &parsed["v"] {
                toml::Value::String(text) => Raw::Text(text.clone()),
                toml::Value::Integer(int) => Raw::Int(*int),
                toml::Value::Boolean(bool) => Raw::Bool(*bool),
                toml::Value::Array(items) => Raw::List(
                    items
                        .iter()
                        .map(|item| Raw::Text(item.as_str().expect("a text").to_owned()))
                        .collect(),
                ),
                other => panic!("unexpected {other}"),
            };
            let again = T::read(&again).expect("what was written is read again");
            assert_eq!(again.to_toml(), toml, "{raw}");
        }
        Err(reason) => assert!(reason.contains(expect), "{raw}: {reason}"),
    }
}

fn t(text: &str) -> Raw {
    Raw::Text(text.to_owned())
}

#[test]
fn durations_are_those_of_prometheus() {
    for (text, expect) in [
        ("30d", "\"30d\""),
        ("1h30m", "\"1h30m\""),
        ("90m", "\"1h30m\""),
        ("1w", "\"7d\""),
        ("1500ms", "\"1s500ms\""),
        ("5m1ms", "\"5m1ms\""),
        ("0", "\"0s\""),
        ("5", "must be a duration with its unit"),
        ("", "must be a duration"),
        ("m5", "must be a duration"),
        ("30m1h", "must be a duration"),
        ("1h1h", "must be a duration"),
        ("-5m", "must be a duration"),
        ("99999999999999999999d", "must be a duration"),
        ("none", "must be a duration"),
    ] {
        check::<Duration>(t(text), expect);
    }
    check::<Duration>(Raw::Int(5), "with its unit");
    check::<Option<Duration>>(t("none"), "\"none\"");
    check::<Option<Duration>>(t("2h"), "\"2h\"");
    check::<Option<Duration>>(t("never"), "or \"none\"");
}

#[test]
fn sizes_have_binary_and_decimal_units() {
    for (text, expect) in [
        ("64MiB", "\"64MiB\""),
        ("64 mib", "\"64MiB\""),
        ("1.5GiB", "\"1536MiB\""),
        ("500kB", "\"500000B\""),
        ("1_000", "\"1000B\""),
        ("0", "\"0B\""),
        ("1.5", "must be a size"),
        ("64 parsecs", "must be a size"),
        ("99999999999TiB", "must be a size"),
        ("", "must be a size"),
    ] {
        check::<Bytes>(t(text), expect);
    }
    check::<Bytes>(Raw::Int(4096), "\"4KiB\"");
    check::<Bytes>(Raw::Int(-1), "must be a size");
    check::<Option<Bytes>>(t("none"), "\"none\"");
}

#[test]
fn other_kinds_take_toml_and_text() {
    check::<bool>(Raw::Bool(true), "true");
    check::<bool>(t("false"), "false");
    check::<bool>(t("yes"), "must be true or false");
    check::<u32>(Raw::Int(7), "7");
    check::<u32>(t("7"), "7");
    check::<u32>(Raw::Int(-7), "from 0 to 4294967295");
    check::<SocketAddr>(t("[::1]:80"), "\"[::1]:80\"");
    check::<SocketAddr>(t("localhost:80"), "\"127.0.0.1:80\"");
    check::<SocketAddr>(t("9009"), "must be an IP address and a port");
    check::<PathBuf>(t("./data"), "\"./data\"");
    check::<PathBuf>(t(""), "must not be empty");
    check::<Vec<String>>(t("a, b"), "[\"a\", \"b\"]");
    check::<Vec<String>>(Raw::List(vec![t("a")]), "[\"a\"]");
    check::<Vec<String>>(Raw::List(vec![Raw::Int(1)]), "must be a text");
    check::<LogFilter>(
        t("info,millrace_store=debug"),
        "\"info,millrace_store=debug\"",
    );
    check::<LogFilter>(t("loud=very"), "must be error, warn");
    check::<LogFormat>(t("json"), "\"json\"");
    check::<LogFormat>(t("xml"), "must be \"text\" or \"json\"");
    check::<AutoCount>(t("auto"), "\"auto\"");
    check::<AutoCount>(Raw::Int(3), "3");
    check::<AutoCount>(Raw::Int(0), "from 1 on");
    check::<Option<String>>(t("none"), "\"none\"");
    check::<Option<String>>(t("db"), "\"db\"");
    check::<WalSyncSetting>(t("always"), "\"always\"");
    check::<WalSyncSetting>(t("1500ms"), "\"1s500ms\"");
    check::<WalSyncSetting>(t("often"), "\"always\" or \"none\"");
}
