//! The comparison from end to end, on a small load, against the Prometheus that is installed.
//! Where there is none it passes without having tested anything, and says so.

use std::process::Command;

#[test]
fn a_small_comparison_finds_every_sample_before_and_after_the_kill() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("prometheus is not installed: nothing was compared");
        return;
    }
    let work_dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millrace-bench"))
        .args(["compare", "--only=prometheus", "--rounds=1", "--json"])
        .args(["--hosts=20", "--samples=20000", "--connections=2"])
        .arg("--work-dir")
        .arg(work_dir.path())
        .output()
        .unwrap();
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problems}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let round = &json[0]["rounds"][0];
    assert_eq!(json[0]["system"], "prometheus");
    assert_eq!(round["load"]["samples"], 20_000);
    // It writes its log before it answers, and the system keeps what a killed process wrote.
    assert_eq!(round["lost_by_kill"], 0);
    for figure in ["cpu_seconds", "peak_memory_bytes", "recovery_seconds"] {
        assert!(round[figure].as_f64().unwrap() > 0.0, "{figure}: {round}");
    }
    let left = work_dir.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "the servers' directories are removed");
}

#[test]
fn a_small_round_of_questions_is_asked_of_every_class() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("prometheus is not installed: nothing was asked");
        return;
    }
    let work_dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millrace-bench"))
        .args([
            "queries",
            "--only=prometheus",
            "--rounds=1",
            "--turn-ms=1",
            "--json",
        ])
        .args(["--mix=services,iot", "--state=memory"])
        .args(["--pods=3", "--devices=5", "--device-hours=1"])
        .arg("--work-dir")
        .arg(work_dir.path())
        .output()
        .unwrap();
    let problems = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problems}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let parts = json.as_array().unwrap();
    assert_eq!(parts.len(), 2);
    for part in parts {
        let classes = part["classes"].as_array().unwrap();
        assert!(classes.len() > 10, "{part}");
        for class in classes {
            let asked = class["systems"][0]["latencies_ms"].as_array().unwrap();
            assert!(asked.len() >= 2, "{class}");
        }
    }
    assert_eq!(work_dir.path().read_dir().unwrap().count(), 0);
}
