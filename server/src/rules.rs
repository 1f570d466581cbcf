//! Rules and the rest of the server: files, the way into the queue, requests to Alertmanagers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_ingest::Ingest;
use millrace_log::fs::Fs;
use millrace_model::{Labels, Sample, TenantId};
use millrace_query::api::Freshness;
use millrace_query::{Engine, SeriesSource};
use millrace_rules::{
    Appended, Files, GlobalConfig, Post, RuleFiles, RuleManager, RulesOptions, RulesWorld, Sink,
    Transport,
};
use millrace_scrape::files;
use tokio::runtime::Handle;

use crate::app::{App, Stage};
use crate::config::Config;
use crate::failure::Failure;
use crate::reload;

/// A connection to an Alertmanager that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(90);

/// Begins to evaluate the rules of the configuration; `None` if it names none. Must be called within a
/// runtime, on a thread that may block.
///
/// # Errors
///
/// Rules with an error.
pub fn start(
    app: &Arc<App>,
    fs: &Arc<dyn Fs>,
    config: &Config,
    ingest: &Ingest,
    engine: &Arc<Engine>,
    source: &Arc<dyn SeriesSource>,
    freshness: &Arc<dyn Freshness>,
) -> Result<Option<RuleManager>, Failure> {
    let settings = &config.rules;
    if settings.config_file.is_none() && settings.files.is_empty() {
        return Ok(None);
    }
    let external = settings.external_url.clone();
    let options = RulesOptions {
        external_url: external
            .unwrap_or_else(|| format!("http://{}", reload::host_and_port(&**fs, config)))
            .trim_end_matches('/')
            .to_owned(),
        threads: settings.threads.or(processors()),
        outage_tolerance: settings.outage_tolerance,
        for_grace_period: settings.for_grace_period,
        resend_delay: settings.resend_delay,
        notification_capacity: settings.notification_queue,
        correct_window: settings.correct_window.unwrap_or_default(),
    };
    let world = RulesWorld {
        engine: engine.clone(),
        source: source.clone(),
        freshness: freshness.clone(),
        sink: Arc::new(Queued {
            app: Arc::downgrade(app),
            ingest: ingest.clone(),
            runtime: Handle::current(),
        }),
        clock: app.clock.clone(),
    };
    let files = Arc::new(RuleDisk(fs.clone()));
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
        .pool_idle_timeout(IDLE)
        .build();
    let client = client.map_err(|error| Failure::Client(format!("no HTTP client: {error}")))?;
    let transport = Arc::new(Http(client));
    let places = places(config)?;
    let manager = RuleManager::start(places, options, world, files, transport, &app.registry);
    let manager = manager.map_err(|error| Failure::Refused(error.to_string()))?;
    Ok(Some(manager))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where rules are written, and what holds for them.
///
/// # Errors
///
/// A tenant's name that is none.
pub fn places(config: &Config) -> Result<RuleFiles, Failure> {
    let settings = &config.rules;
    let tenant: Result<TenantId, _> = settings.tenant.parse();
    Ok(RuleFiles {
        config_file: settings.config_file.clone(),
        patterns: settings.files.clone(),
        defaults: GlobalConfig {
            tenant: tenant.map_err(|error| Failure::Refused(format!("rules.tenant: {error}")))?,
            evaluation_interval: settings.evaluation_interval,
            ..GlobalConfig::default()
        },
    })
}

/// Files of rules and Alertmanagers.
#[derive(Debug)]
pub struct RuleDisk(pub Arc<dyn Fs>);

impl Files for RuleDisk {
    fn matching(&self, pattern: &Path) -> Result<Vec<(PathBuf, String)>, String> {
        let found = files::matching(&*self.0, pattern).map_err(|error| error.to_string())?;
        let read = |path: PathBuf| match files::read_text(&*self.0, &path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(error.to_string()),
        };
        found.into_iter().map(read).collect()
    }
}

/// Stores results as pushed data are stored.
struct Queued {
    /// It owns the parts, rules among them.
    app: Weak<App>,
    ingest: Ingest,
    runtime: Handle,
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queued")
    }
}

impl Sink for Queued {
    fn is_ready(&self) -> bool {
        let app = self.app.upgrade();
        app.is_some_and(|app| matches!(app.stage().0, Stage::Ready | Stage::Hindered))
    }

    fn append(
        &self,
        tenant: &TenantId,
        samples: Vec<(Labels, Sample)>,
    ) -> Result<Appended, String> {
        let written = self.runtime.block_on(self.ingest.write(tenant, samples));
        let written = written.map_err(|error| error.to_string())?;
        Ok(Appended {
            position: written.position.map(|position| position.to_string()),
            refused: (written.refused > 0)
                .then(|| (written.refused, written.reason.unwrap_or_default())),
        })
    }
}

/// Requests to Alertmanagers.
#[derive(Debug)]
struct Http(reqwest::blocking::Client);

impl Transport for Http {
    fn post(&self, post: &Post<'_>) -> Result<u16, String> {
        let mut request = self
            .0
            .post(post.url)
            .header("content-type", "application/json")
            .timeout(post.timeout)
            .body(post.body.to_vec());
        if let Some(value) = &post.authorization {
            request = request.header("authorization", value);
        }
        let sent = request.send();
        sent.map(|response| response.status().as_u16())
            .map_err(|error| describe(&error))
    }
}

/// An error with what is behind it.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        text.push_str(&format!(": {behind}"));
        source = behind.source();
    }
    text
}
