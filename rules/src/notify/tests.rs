use std::path::{Path, PathBuf};

use millrace_model::{ManualClock, TimestampMs};
use prometheus::Registry;

use super::*;
use crate::alert::AlertState;
use crate::config::RulesConfig;

/// URL, authorization and body.
type Posted = (String, Option<String>, String);

/// Notes what was posted where, and answers with a status.
#[derive(Debug, Default)]
struct Noted {
    posts: Mutex<Vec<Posted>>,
    status: u16,
}

impl Transport for Noted {
    fn post(&self, post: &Post<'_>) -> Result<u16, String> {
        let body = String::from_utf8(post.body.to_vec()).unwrap();
        let noted = (post.url.to_owned(), post.authorization.clone(), body);
        self.posts.lock().push(noted);
        Ok(self.status)
    }
}

#[derive(Debug)]
struct One(&'static str);

impl Files for One {
    fn matching(&self, pattern: &Path) -> Result<Vec<(PathBuf, String)>, String> {
        match pattern.to_str() {
            Some("p.yml") => Ok(vec![(pattern.to_owned(), self.0.to_owned())]),
            Some("targets.json") => {
                let text = r#"[{"targets": ["c:1"], "labels": {"x": "y"}}]"#;
                Ok(vec![(pattern.to_owned(), text.to_owned())])
            }
            Some("secret") => Ok(vec![(pattern.to_owned(), "s3cret\n".to_owned())]),
            _ => Err("no such file".to_owned()),
        }
    }
}

fn alert(name: &str, resolved: bool) -> ActiveAlert {
    ActiveAlert {
        state: AlertState::Firing,
        labels: Labels::from_pairs([("alertname", name), ("instance", "i")]).unwrap(),
        annotations: vec![("s".to_owned(), "text \"quoted\"".to_owned())],
        value: 1.0,
        active_at: TimestampMs(1_000),
        fired_at: Some(TimestampMs(1_700_000_000_123)),
        resolved_at: resolved.then_some(TimestampMs(1_700_000_060_000)),
        last_sent_at: None,
        valid_until: Some(TimestampMs(1_700_000_240_000)),
        keep_firing_since: None,
    }
}

/// Sends alerts by a configuration, all that are queued; what was posted.
fn sent(yaml: &'static str, status: u16, alerts: &[ActiveAlert]) -> (Noted, Metrics, Notifier) {
    let transport = Arc::new(Noted {
        status,
        ..Noted::default()
    });
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let files = Arc::new(One(yaml));
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    let notifier = Notifier::new(transport.clone(), files.clone(), clock, metrics.clone(), 3);
    let engine = millrace_query::Engine::new(
        Arc::new(Empty),
        millrace_query::EngineOptions {
            threads: 1,
            ..millrace_query::EngineOptions::default()
        },
    );
    let defaults = crate::GlobalConfig::default();
    let config = RulesConfig::read(&*files, Some(Path::new("p.yml")), &[], &defaults, &engine);
    let config = config.unwrap();
    notifier.configure(&config.alerting, &config.global.external_labels);
    notifier.send(alerts, "http://g");
    // Closed, it sends what waits and ends.
    notifier.close();
    notifier.run();
    let posts = std::mem::take(&mut *transport.posts.lock());
    let noted = Noted {
        posts: Mutex::new(posts),
        status,
    };
    (noted, metrics, notifier)
}

#[derive(Debug)]
struct Empty;

impl millrace_query::SeriesSource for Empty {
    fn select(
        &self,
        _: &millrace_query::Select<'_>,
    ) -> Result<Vec<Box<dyn millrace_query::StoredSeries>>, millrace_query::SourceError> {
        Ok(Vec::new())
    }
}

#[test]
fn alerts_leave_in_the_form_of_the_api() {
    let (noted, ..) = sent(
        "global: {external_labels: {region: eu, instance: never}}\n\
         alerting:\n  alertmanagers:\n  - {static_configs: [{targets: ['a:9093']}], path_prefix: /am/}\n",
        200,
        &[alert("A", false), alert("B", true)],
    );
    let posts = noted.posts.lock();
    assert_eq!(posts[0].0, "http://a:9093/am/api/v2/alerts");
    assert_eq!(
        posts[0].2,
        r#"[{"annotations":{"s":"text \"quoted\""},"endsAt":"2023-11-14T22:17:20.000Z","startsAt":"2023-11-14T22:13:20.123Z","generatorURL":"http://g","labels":{"alertname":"A","instance":"i","region":"eu"}},{"annotations":{"s":"text \"quoted\""},"endsAt":"2023-11-14T22:14:20.000Z","startsAt":"2023-11-14T22:13:20.123Z","generatorURL":"http://g","labels":{"alertname":"B","instance":"i","region":"eu"}}]"#
    );
}

#[test]
fn alertmanagers_are_found_relabelled_and_proven_to() {
    let (noted, _, notifier) = sent(
        "alerting:\n  alert_relabel_configs:\n  - {action: drop, source_labels: [alertname], regex: B}\n  \
         alertmanagers:\n  - {static_configs: [{targets: ['a:1']}], basic_auth: {username: u, password: p}}\n  \
         - scheme: https\n    authorization: {credentials_file: secret}\n    \
         file_sd_configs: [{files: [targets.json]}]\n    \
         static_configs: [{targets: ['d:1'], labels: {x: drop}}]\n    \
         relabel_configs:\n    - {action: drop, source_labels: [x], regex: drop}\n    \
         alert_relabel_configs:\n    - {action: labeldrop, regex: instance}\n",
        200,
        &[alert("A", false), alert("B", false)],
    );
    let mut posts = noted.posts.lock().clone();
    posts.sort();
    let seen: Vec<_> = posts
        .iter()
        .map(|(url, authorization, _)| (url.as_str(), authorization.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("http://a:1/api/v2/alerts", Some("Basic dTpw")),
            ("https://c:1/api/v2/alerts", Some("Bearer s3cret")),
        ]
    );
    assert!(posts[0].2.contains("instance") && !posts[0].2.contains("\"B\""));
    assert!(!posts[1].2.contains("instance"));
    let (active, dropped) = notifier.alertmanagers();
    assert_eq!(active.len(), 2);
    assert_eq!(dropped, ["https://d:1/api/v2/alerts"]);
}

#[test]
fn what_nobody_takes_and_what_does_not_fit_is_counted() {
    let yaml = "alerting:\n  alertmanagers:\n  - {static_configs: [{targets: ['a:1']}]}\n";
    let five: Vec<_> = ["1", "2", "3", "4", "5"]
        .map(|name| alert(name, false))
        .into();
    let (noted, metrics, _) = sent(yaml, 200, &five);
    assert_eq!(metrics.dropped.get(), 2);
    let body = noted.posts.lock()[0].2.clone();
    assert!(
        !body.contains("\"2\"") && body.contains("\"3\""),
        "the oldest go: {body}"
    );
    let (_, metrics, _) = sent(yaml, 500, &five[..1]);
    assert_eq!(metrics.dropped.get(), 1);
    let errors = metrics
        .send_errors
        .with_label_values(&["http://a:1/api/v2/alerts"]);
    assert_eq!(errors.get(), 1);
}
