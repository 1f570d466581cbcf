//! Scraping, side by side with a real Prometheus: one configuration of ten jobs and more, the same
//! targets, and what both say of them.
//!
//! Runs where `prometheus` is on the path; with `CI` set it must be. What needs no Prometheus is in
//! the second half.

mod alone;
pub mod target;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::prometheus::{Running, free_port, program, spawn};
use crate::support::{Client, Millrace, eventually, matrix, now_ms, vector};
use target::{TEXT, Target, ok};

const PATIENCE: Duration = Duration::from_secs(90);

const PLAIN: &str = "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\n\
    jobs_total{kind=\"a\"} 7\njobs_total{kind=\"b\"} 8\n\
    temp -2.5e3\nbig +Inf\nesc{a=\"q\\\"b\\\\n\\n\"} 1\n";

const CONFLICTS: &str = "m{job=\"own\",instance=\"other\"} 1\nm{job=\"own\",exported_job=\"x\"} 2\n\
    n{instance=\"\"} 3\nplain_one 4\n";

const OPEN_METRICS: &str = "# TYPE req_seconds counter\n# UNIT req_seconds seconds\n\
    req_seconds_total{code=\"200\"} 5 # {trace_id=\"abc\"} 0.7\nreq_seconds_created{code=\"200\"} 1.7e9\n\
    # TYPE lat histogram\nlat_bucket{le=\"0.5\"} 1\nlat_bucket{le=\"+Inf\"} 2\nlat_sum 3.5\nlat_count 2\n\
    # EOF\n";

const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The targets.
struct World {
    plain: Target,
    others: Vec<Target>,
    exporter: Option<(Running, u16)>,
    fewer: Arc<AtomicBool>,
}

impl World {
    fn start(dir: &Path) -> Self {
        let fewer = Arc::new(AtomicBool::new(false));
        let less = fewer.clone();
        let plain = Target::start(move |_| match less.load(Ordering::SeqCst) {
            true => ok(TEXT, "temp -2.5e3\n"),
            false => ok(TEXT, PLAIN),
        });
        let various = Target::start(|asked| {
            let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
            match path {
                "/conflicts" => ok(TEXT, CONFLICTS),
                "/open" => ok(OPEN_METRICS_TYPE, OPEN_METRICS),
                "/many" => ok(
                    TEXT,
                    (0..20)
                        .map(|i| format!("many{{i=\"{i}\"}} {i}\n"))
                        .collect::<String>(),
                ),
                "/broken" => ok(TEXT, "fine 1\nthis is nothing\n"),
                "/stamped" => ok(TEXT, format!("stamped{{extra=\"x\"}} 1 {}\n", now_ms())),
                "/probe" if asked.header("authorization") == "Basic bWU6aHVzaA==" => {
                    ok(TEXT, format!("probed{{query=\"{query}\"}} 1\n"))
                }
                "/probe" => ("401 Unauthorized", TEXT, String::new()),
                "/groups" => ok(
                    "application/json",
                    format!(
                        "[{{\"targets\": [\"{}\"], \"labels\": {{\"__meta_site\": \"North\", \
                         \"__meta_rack\": \"r1\", \"__metrics_path__\": \"/conflicts\"}}}}]",
                        asked.header("host")
                    ),
                ),
                "/metrics" => ok(TEXT, PLAIN),
                _ => ("404 Not Found", TEXT, String::new()),
            }
        });
        let mut others: Vec<_> = (2..=7).map(|last| various.also_at(last)).collect();
        others.insert(0, various);
        let exporter = program(&["prometheus-node-exporter", "node_exporter"]).map(|exporter| {
            let port = free_port();
            let listen = format!("--web.listen-address=127.0.0.1:{port}");
            (
                spawn(
                    Command::new(exporter).arg(listen),
                    &dir.join("exporter.log"),
                ),
                port,
            )
        });
        Self {
            plain,
            others,
            exporter,
            fewer,
        }
    }

    /// The configuration that both read. `honor` is a job that may be gone.
    fn config(&self, dir: &Path, honor: bool) -> String {
        let (plain, various) = (self.plain.address, self.others[0].address);
        let shards: Vec<_> = self.others[1..]
            .iter()
            .map(|t| format!("'{}'", t.address))
            .collect();
        let shards = shards.join(", ");
        let node = self
            .exporter
            .as_ref()
            .map_or(free_port(), |(_, port)| *port);
        // Which nobody listens on.
        let dead = 1;
        let dir = dir.display();
        let honor = match honor {
            true => format!(
                "- job_name: honor\n  honor_labels: true\n  metrics_path: /conflicts\n  \
                 static_configs: [{{targets: ['{various}']}}]\n"
            ),
            false => String::new(),
        };
        format!(
            r#"global: {{scrape_interval: 1s, scrape_timeout: 1s, external_labels: {{replica: a}}}}
scrape_configs:
- job_name: plain
  static_configs: [{{targets: ['{plain}'], labels: {{env: prod}}}}]
  relabel_configs:
  - {{source_labels: [__address__, env], separator: '@', regex: '(.*):\d+@(.*)', target_label: where, replacement: '$2-${{1}}'}}
- job_name: node
  static_configs: [{{targets: ['127.0.0.1:{node}']}}]
  metric_relabel_configs:
  - {{source_labels: [__name__], regex: 'node_(cpu_seconds_total|memory_MemTotal_bytes|uname_info)', action: keep}}
  - {{regex: domainname, action: labeldrop}}
{honor}- job_name: exported
  metrics_path: /conflicts
  static_configs: [{{targets: ['{various}']}}]
- job_name: open
  metrics_path: /open
  static_configs: [{{targets: ['{various}']}}]
  metric_relabel_configs:
  - {{source_labels: [le], regex: '0\.5', action: drop}}
  - {{source_labels: [__name__], target_label: family, regex: '(req|lat)_.*', replacement: '${{1}}'}}
- job_name: file
  file_sd_configs: [{{files: ['{dir}/targets-*.json']}}]
  relabel_configs:
  - {{source_labels: [__meta_filepath], regex: '.*/targets-(.*)\.json', target_label: file}}
  - {{source_labels: [group], target_label: group, action: uppercase}}
- job_name: shards
  metrics_path: /metrics
  static_configs: [{{targets: [{shards}]}}]
  relabel_configs:
  - {{source_labels: [__address__], modulus: 2, target_label: __tmp_shard, action: hashmod}}
  - {{source_labels: [__tmp_shard], regex: '1', action: keep}}
  - {{source_labels: [__tmp_shard], target_label: shard}}
  - {{source_labels: [job], target_label: job, action: keepequal}}
  - {{source_labels: [shard], target_label: job, action: dropequal}}
- job_name: limited
  metrics_path: /many
  sample_limit: 10
  static_configs: [{{targets: ['{various}']}}]
- job_name: probe
  metrics_path: /probe
  params: {{module: [http_2xx]}}
  basic_auth: {{username: me, password: hush}}
  static_configs: [{{targets: ['example.org']}}]
  relabel_configs:
  - {{source_labels: [__address__], target_label: __param_target}}
  - {{source_labels: [__param_target], target_label: instance}}
  - {{target_label: __address__, replacement: '{various}'}}
- job_name: refused
  metrics_path: /probe
  static_configs: [{{targets: ['{various}']}}]
- job_name: found
  http_sd_configs: [{{url: 'http://{various}/groups', refresh_interval: 1s}}]
  relabel_configs:
  - {{regex: '__meta_(site|rack)', action: labelmap}}
  - {{source_labels: [site], target_label: lower, action: lowercase}}
- job_name: broken
  metrics_path: /broken
  static_configs: [{{targets: ['{various}']}}]
- job_name: stamped
  metrics_path: /stamped
  honor_timestamps: true
  static_configs: [{{targets: ['{various}']}}]
  metric_relabel_configs:
  - {{regex: '__name__|job|instance', action: labelkeep}}
- job_name: dead
  static_configs: [{{targets: ['127.0.0.1:{dead}', '127.0.0.1:{dead}', 'dropped:1']}}]
  relabel_configs:
  - {{source_labels: [__address__], regex: 'dropped.*', action: drop}}
"#
        )
    }
}

struct Pair {
    ours: Client,
    theirs: Client,
}

impl Pair {
    fn both(&self) -> [(&'static str, &Client); 2] {
        [("prometheus", &self.theirs), ("millrace", &self.ours)]
    }

    /// Waits until both say the same, and returns it.
    fn agree<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        ask: impl Fn(&Client) -> T,
        good: impl Fn(&T) -> bool,
    ) -> T {
        eventually(what, PATIENCE, || {
            let (theirs, ours) = (ask(&self.theirs), ask(&self.ours));
            match theirs == ours && good(&theirs) {
                true => Ok(ours),
                false => Err(format!("prometheus: {theirs:#?}\nmillrace: {ours:#?}")),
            }
        })
    }
}

/// Label sets of all series that have a sample now, as texts.
fn series(client: &Client, selector: &str) -> BTreeSet<String> {
    vector(&client.query(selector, None)).into_keys().collect()
}

/// Values now, by label set.
fn values(client: &Client, selector: &str) -> BTreeMap<String, String> {
    let data = client.query(selector, None);
    let result = data["result"].as_array().unwrap();
    let pair = |item: &Value| {
        (
            item["metric"].to_string(),
            item["value"][1].as_str().unwrap().to_owned(),
        )
    };
    result.iter().map(pair).collect()
}

/// Raw samples of the last minutes of one series: (ms, value).
fn samples(client: &Client, selector: &str) -> Vec<(i64, f64)> {
    let found = matrix(&client.query(&format!("{selector}[5m]"), None));
    assert!(found.len() <= 1, "{selector}: {found:?}");
    found.into_values().next().unwrap_or_default()
}

fn targets(client: &Client) -> BTreeSet<String> {
    let data = client.get("/api/v1/targets").json()["data"].clone();
    let shown = |target: &Value| {
        let fields = [
            "labels",
            "discoveredLabels",
            "scrapePool",
            "scrapeUrl",
            "health",
            "scrapeInterval",
            "scrapeTimeout",
        ];
        fields.map(|field| target[field].to_string()).join(" ")
    };
    let active = data["activeTargets"].as_array().unwrap().iter().map(shown);
    let dropped = data["droppedTargets"].as_array().unwrap().iter();
    active
        .chain(dropped.map(|target| target["discoveredLabels"].to_string()))
        .collect()
}

#[test]
fn ten_jobs_are_scraped_as_by_the_prometheus_beside_it() {
    let Some(prometheus) = program(&["prometheus"]) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "prometheus is not on the path"
        );
        println!("NOT RUN: prometheus is not on the path");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path());
    let file = |name: &str, group: &str| {
        let text = format!(
            "[{{\"targets\": [\"{}\"], \"labels\": {{\"group\": \"{group}\"}}}}]",
            world.others[1].address
        );
        std::fs::write(dir.path().join(format!("targets-{name}.json")), text).unwrap();
    };
    file("one", "first");
    file("two", "second");
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, world.config(dir.path(), true)).unwrap();
    let port = free_port();
    let _prometheus = spawn(
        Command::new(prometheus)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("tsdb").display()
            ))
            .arg("--web.enable-lifecycle")
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &dir.path().join("prometheus.log"),
    );
    let setting = format!("scrape.config_file={}", config.display());
    let millrace = Millrace::start(
        &dir.path().join("millrace"),
        &[&setting, "server.admin_api=true"],
    );
    let pair = Pair {
        ours: millrace.client(),
        theirs: Client::new(&format!("http://127.0.0.1:{port}")),
    };
    eventually("prometheus", PATIENCE, || {
        let answer = pair.theirs.send("GET", "/-/ready", &[], Vec::new());
        answer
            .map_err(|error| error.to_string())
            .and_then(|answer| match answer.status {
                200 => Ok(()),
                _ => Err(answer.text),
            })
    });

    the_same_series_and_values(&pair, &world);
    death_and_return(&pair, &mut world);
    a_series_that_goes(&pair, &world);

    // A file that goes takes its targets with it.
    std::fs::remove_file(dir.path().join("targets-two.json")).unwrap();
    let gone =
        |found: &BTreeSet<String>| !found.is_empty() && found.iter().all(|s| s.contains("FIRST"));
    pair.agree(
        "the targets of a file to go",
        |c| series(c, "{job=\"file\"}"),
        gone,
    );

    // A job that goes with a reload. Prometheus leaves its series to the lookback; we end them.
    std::fs::write(&config, world.config(dir.path(), false)).unwrap();
    for (name, client) in pair.both() {
        let answer = client.post("/-/reload", &[], "");
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    eventually("the series of a job to go", PATIENCE, || {
        let left = series(&pair.ours, "{job=\"honor\"}");
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    });
    let up = pair.agree(
        "the others to stay",
        |client| series(client, "up{job!=\"honor\"}"),
        |up| up.len() >= 13,
    );
    println!("scrape: {} targets after a reload", up.len());
}

fn the_same_series_and_values(pair: &Pair, world: &World) {
    // limited, refused, broken, dead; node too, where there is no exporter.
    let down = if world.exporter.is_some() { 4 } else { 5 };
    // Twelve jobs at least, each with what it should be, once the slowest has answered.
    let up = pair.agree(
        "the same up everywhere",
        |client| values(client, "up"),
        |up| {
            let found = up.keys().any(|key| key.contains("\"found\""));
            let zero = up.values().filter(|value| *value == "0").count();
            up.len() >= 14 && found && zero == down
        },
    );
    let all = "{job=~\".+\",__name__!~\"node_.*\"}";
    let same = pair.agree(
        "the same series",
        |c| series(c, all),
        |found| found.len() > 100,
    );
    println!("scrape: {} targets, {} series equal", up.len(), same.len());
    if world.exporter.is_some() {
        let node = pair.agree(
            "node_exporter",
            |c| series(c, "{__name__=~\"node_.*\"}"),
            |s| s.len() >= 3,
        );
        println!("scrape: {} series of node_exporter equal", node.len());
    }
    // All but what depends on the moment.
    let still =
        "{job=~\".+\",job!=\"node\",__name__!~\"scrape_duration_seconds|scrape_series_added\"}";
    pair.agree(
        "the same values",
        |c| values(c, still),
        |found| found.len() > 80,
    );
    pair.agree(
        "nothing new",
        |c| values(c, "sum(scrape_series_added{job!=\"node\"})"),
        |sum| sum.values().all(|value| value == "0"),
    );
    pair.agree("the same targets", targets, |found| found.len() >= 15);
}

/// At the moment at which `up` is 0 for the first time the series are gone, and at that at which it
/// is 1 again they are back: in both.
fn death_and_return(pair: &Pair, world: &mut World) {
    let selector = "up{job=\"plain\"}";
    let died = now_ms();
    world.plain.die();
    let down = |client: &Client, name: &str| {
        eventually(name, PATIENCE, || {
            let up = samples(client, selector);
            // One that had begun when the target died, and came too late, is stamped before that.
            let first = up
                .iter()
                .find(|(at, value)| *at > died - 1_000 && *value == 0.0);
            first.copied().ok_or_else(|| format!("{up:?}"))
        })
    };
    let own = |client: &Client, at: i64| {
        let time = format!("{}.{:03}", at / 1000, at % 1000);
        let found = client.query(
            "count({job=\"plain\",__name__!~\"up|scrape_.*\"})",
            Some(&time),
        );
        found["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    // The series are in other partitions than `up`, which may be seen a little later.
    let own_are = |client: &Client, at: i64, count: Option<&str>, what: &str| {
        eventually(what, PATIENCE, || {
            let found = own(client, at);
            match found.as_deref() == count {
                true => Ok(()),
                false => Err(format!("{found:?}")),
            }
        });
    };
    let mut gone = BTreeMap::new();
    for (name, client) in pair.both() {
        let (at, _) = down(client, name);
        gone.insert(name, at);
        own_are(
            client,
            at - 1,
            Some("5"),
            &format!("{name}, before the death"),
        );
        own_are(client, at, None, &format!("{name}, at the moment of death"));
        assert_eq!(
            samples(client, "temp{job=\"plain\"}").last().map(|s| s.1),
            Some(-2500.0)
        );
    }
    world.plain.come_back();
    for (name, client) in pair.both() {
        let (at, _) = eventually(name, PATIENCE, || {
            let up = samples(client, selector);
            let first = up
                .iter()
                .find(|(at, value)| *at > gone[name] && *value == 1.0);
            first.copied().ok_or_else(|| format!("{up:?}"))
        });
        own_are(client, at - 1, None, &format!("{name}, before the return"));
        own_are(client, at, Some("5"), &format!("{name}, at the return"));
        // They were known all the time, so nothing was added.
        let added = samples(client, "scrape_series_added{job=\"plain\"}");
        let mut since = added.iter().filter(|(at, _)| *at > died);
        assert!(since.all(|(_, added)| *added == 0.0), "{name}: {added:?}");
    }
}

fn a_series_that_goes(pair: &Pair, world: &World) {
    let shown = |client: &Client| series(client, "{job=\"plain\",__name__!~\"up|scrape_.*\"}");
    pair.agree("all series", shown, |found| found.len() == 5);
    world.fewer.store(true, Ordering::SeqCst);
    pair.agree("four series to go while the target is up", shown, |found| {
        found.len() == 1
    });
    world.fewer.store(false, Ordering::SeqCst);
    pair.agree("them to come back", shown, |found| found.len() == 5);
}
