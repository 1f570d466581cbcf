//! Settings from outside: precedence, provenance, and the reference page.

use std::path::Path;
use std::process::Command;

use crate::support::Millrace;

fn output(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary is there");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("an exit code");
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn every_value_says_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("m.toml"),
        "data_dir = \"/tmp/d\"\n\n[ingest]\nmax_age = \"7d\"\nmax_ahead = \"none\"\n\n\
         [log]\nlevel = \"warn\"\n",
    )
    .unwrap();
    let (code, stdout, stderr) = output(
        Millrace::command()
            .current_dir(dir.path())
            .args(["config", "--config", "m.toml", "--listen", "127.0.0.1:8000"])
            .args(["--set", "queue.partitions=2"])
            .env("MILLRACE_INGEST_MAX_AGE", "2d")
            .env("MILLRACE_QUEUE_PARTITIONS", "7"),
    );
    assert_eq!((code, stderr.as_str()), (0, ""));
    let normalized = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = stdout.lines().map(normalized).collect();
    for expect in [
        "listen = \"127.0.0.1:8000\" # flag --listen",
        "data_dir = \"/tmp/d\" # m.toml:1:1",
        "max_age = \"2d\" # environment variable MILLRACE_INGEST_MAX_AGE",
        "max_ahead = \"none\" # m.toml:5:1",
        "partitions = 2 # flag --set",
        "level = \"warn\" # m.toml:8:1",
        "format = \"text\" # default",
    ] {
        assert!(
            lines.iter().any(|line| line == expect),
            "no {expect:?} in\n{stdout}"
        );
    }

    // What it prints is a config file with the same values, all of them from that file.
    std::fs::write(dir.path().join("printed.toml"), &stdout).unwrap();
    let (code, again, stderr) = output(Millrace::command().current_dir(dir.path()).args([
        "config",
        "--config",
        "printed.toml",
    ]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let values = |text: &str| -> Vec<String> {
        let value = |line: &str| normalized(line.split('#').next().unwrap_or(line));
        text.lines().map(value).collect()
    };
    assert_eq!(values(&stdout), values(&again));
    assert!(!again.contains("# default"), "{again}");
}

#[test]
fn what_is_wrong_ends_with_78_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.toml"), "[ingest]\nmax_agee = \"7d\"\n").unwrap();
    for (args, expect) in [
        (
            vec!["--config", "m.toml"],
            "millrace: m.toml:2:1: there is no setting \"ingest.max_agee\", did you mean \
             \"ingest.max_age\"?; `millrace config` lists them all\n",
        ),
        (
            vec!["--config", "none.toml"],
            "millrace: config file \"none.toml\" cannot be read: No such file or directory (os error 2)\n",
        ),
        (
            vec!["--set", "log.level"],
            "millrace: flag --set \"log.level\": must be key=value, such as --set ingest.max_age=7d\n",
        ),
        (
            vec!["--listen", "0.0.0.0:0"],
            "millrace: listen = \"0.0.0.0:0\" (flag --listen): others can reach this address, and \
             no token is asked for; listen on 127.0.0.1, make tokens and set `auth.enabled=true` \
             (docs/security.md), or say `--set server.allow_public_without_auth=true`\n",
        ),
    ] {
        let mut command = Millrace::command();
        let (code, stdout, stderr) = output(command.current_dir(dir.path()).args(&args));
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (78, "", expect),
            "{args:?}"
        );
    }
}

#[test]
fn the_reference_page_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let (code, expect, _) = output(Millrace::command().args(["config", "--reference"]));
    assert_eq!(code, 0);
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expect,
        "docs/configuration.md is not what the table of settings says; write it again:\n  \
         cargo run -p millrace -- config --reference > docs/configuration.md"
    );
}

#[test]
fn help_and_version_are_there() {
    let (code, stdout, _) = output(Millrace::command().arg("--help"));
    assert_eq!(code, 0);
    for expect in ["Examples:", "demo", "--data-dir", "--set <KEY=VALUE>"] {
        assert!(stdout.contains(expect), "no {expect:?} in\n{stdout}");
    }
    let (code, stdout, _) = output(Millrace::command().arg("version"));
    assert_eq!(
        (code, stdout),
        (0, format!("millrace {}\n", env!("CARGO_PKG_VERSION")))
    );
    let (code, _, stderr) = output(Millrace::command().arg("dance"));
    assert_eq!(code, 2);
    assert!(
        stderr.contains("unrecognized subcommand 'dance'"),
        "{stderr}"
    );
}
