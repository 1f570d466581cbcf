//! The README's transcripts, run as they stand there.
//!
//! A block marked `console` is a session: lines that begin with `$ ` are typed, what follows is
//! what comes. Only two things differ from what a reader does: the port, and the moment, which the
//! README prints as a fixed one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{Client, Millrace, eventually, now_ms};

/// The moment that the README's outputs show.
const PRINTED_TIME: &str = "1795233600";

const ADDRESS: &str = "127.0.0.1:9009";

#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    output: String,
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => inside = false,
            (true, line) => match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    line: number + 1,
                    command: command.to_owned(),
                    output: String::new(),
                }),
                None => {
                    let step = steps.last_mut().expect("a block begins with a command");
                    step.output.push_str(line);
                    step.output.push('\n');
                }
            },
            (false, _) => {}
        }
    }
    steps
}

fn everything_is_applied(client: &Client) {
    eventually("the store to catch up", Duration::from_secs(30), || {
        let status = client.get("/api/v1/status/pipeline").json();
        let partitions = status["data"]["partitions"].as_array().expect("an array");
        let behind = partitions.iter().any(|p| p["lag_records"] != 0);
        if behind {
            Err(status.to_string())
        } else {
            Ok(())
        }
    });
}

#[test]
fn what_the_readme_shows_is_what_comes() {
    let text = std::fs::read_to_string(readme()).unwrap();
    let steps = steps(&text);
    assert!(
        steps.len() >= 6,
        "the README has lost its transcripts: {steps:?}"
    );
    let dir = tempfile::tempdir().unwrap();
    let server = Millrace::start(dir.path(), &[]);
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let now = (now_ms() / 1000).to_string();

    let (mut session, mut expected, mut got) = (String::new(), String::new(), String::new());
    for step in &steps {
        // A newcomer types; a test does not, and would ask before the store has applied.
        everything_is_applied(&server.client());
        let command = step.command.replace(ADDRESS, &address);
        let command = match command.as_str() {
            "T=$(date +%s)" => format!("T={now}"),
            command => command.to_owned(),
        };
        // Commands that set a variable are repeated; the others have been run.
        let output = Command::new("bash")
            .args(["-euc", &format!("{session}\n{command}")])
            .output()
            .expect("bash is there");
        if command.starts_with("T=") {
            session = command;
        }
        let mut shown = String::from_utf8(output.stdout).unwrap();
        shown.push_str(&String::from_utf8(output.stderr).unwrap());
        if !shown.is_empty() && !shown.ends_with('\n') {
            // The shell's prompt comes on the same line; the README breaks it for the eye.
            shown.push('\n');
        }
        let head = format!("README.md:{}: $ {}\n", step.line, step.command);
        expected.push_str(&format!("{head}{}", step.output));
        got.push_str(&format!("{head}{}", shown.replace(&now, PRINTED_TIME)));
    }
    assert_eq!(
        expected, got,
        "the README shows\n{expected}\nand what comes is\n{got}"
    );
}
