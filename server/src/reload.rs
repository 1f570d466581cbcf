//! What can be read again while the server runs: the scrape configuration, recording and alerting rules, and
//! the rules for pushed series here; tokens and certificates by [`Watched`]. `POST /-/reload` and SIGHUP do it.
//!
//! **Invariants:**
//! - what has an error changes nothing, and says so in the answer, the log and the metrics;
//! - an answer that says that all is read again comes when it is, and reloads come one after another.

use std::path::PathBuf;
use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use millrace_ingest::Ingest;
use millrace_log::fs::Fs;
use millrace_rules::RuleManager;
use millrace_scrape::{PushRelabel, Scraper, ScraperOptions};
use parking_lot::Mutex;
use prometheus::{IntGauge, Registry};
use tokio::signal::unix::Signal;
use tracing::{error, info};

use crate::app::App;
use crate::config::Config;
use crate::edge::Watched;
use crate::failure::Failure;
use crate::routes;
use crate::views::ViewFile;

/// Reads files again.
#[derive(Default)]
pub struct Reloader {
    scraper: Option<Scraper>,
    relabel: Option<Relabel>,
    rules: Option<RuleManager>,
    views: Option<ViewFile>,
    /// One at a time: the files that were read last are those that hold.
    reading: Mutex<()>,
}

/// The rules for pushed series.
struct Relabel {
    path: PathBuf,
    ingest: Ingest,
    fs: Arc<dyn Fs>,
    successful: IntGauge,
}

impl Reloader {
    /// Reads everything for the first time, and begins to scrape. Must be called within a runtime.
    ///
    /// # Errors
    ///
    /// A file with an error.
    pub fn start(
        app: &App,
        fs: &Arc<dyn Fs>,
        config: &Config,
        ingest: &Ingest,
    ) -> Result<Self, Failure> {
        let mut reloader = Self {
            scraper: None,
            relabel: None,
            rules: None,
            views: None,
            reading: Mutex::new(()),
        };
        if let Some(path) = &config.ingest.relabel_file {
            let relabel = Relabel {
                path: path.clone(),
                ingest: ingest.clone(),
                fs: fs.clone(),
                successful: successful(&app.registry)?,
            };
            relabel.read().map_err(Failure::Refused)?;
            reloader.relabel = Some(relabel);
        }
        if let Some(path) = &config.scrape.config_file {
            let tenant = config.scrape.tenant.parse();
            let options = ScraperOptions {
                config_file: path.clone(),
                tenant: tenant
                    .map_err(|error| Failure::Refused(format!("scrape.tenant: {error}")))?,
                machine: machine(&**fs, config),
            };
            let (ingest, clock) = (ingest.clone(), app.clock.clone());
            let scraper = Scraper::start(options, ingest, clock, fs.clone(), &app.registry);
            reloader.scraper = Some(scraper.map_err(|error| Failure::Refused(error.to_string()))?);
        }
        Ok(reloader)
    }

    /// The scraper, if this process scrapes.
    #[must_use]
    pub fn scraper(&self) -> Option<&Scraper> {
        self.scraper.as_ref()
    }

    /// Has rules read again too.
    pub fn add_rules(&mut self, rules: RuleManager) {
        self.rules = Some(rules);
    }

    /// Reads a file of views again, too. It was read once.
    pub fn watch_views(&mut self, file: ViewFile) {
        self.views = Some(file);
    }

    /// Reads all of it again. Must be called within a runtime; blocks.
    ///
    /// # Errors
    ///
    /// In words, everything that has an error. The rest is in use.
    pub fn reload(&self) -> Result<(), String> {
        let _one = self.reading.lock();
        let relabel = self.relabel.as_ref().map(Relabel::read);
        let scrape = self.scraper.as_ref().map(Scraper::reload);
        let scrape = scrape.map(|done| done.map_err(|error| error.to_string()));
        let views = self.views.as_ref().map(ViewFile::read);
        let rules = self.rules.as_ref().map(RuleManager::reload);
        let rules = rules.map(|done| done.map_err(|error| error.to_string()));
        let errors = [relabel, scrape, rules, views]
            .into_iter()
            .flatten()
            .filter_map(Result::err);
        let errors: Vec<String> = errors.collect();
        if errors.is_empty() {
            info!("the configuration files are read again");
            return Ok(());
        }
        let errors = errors.join("; ");
        error!(
            error = errors,
            "a configuration file has an error: what was read before stays"
        );
        Err(errors)
    }
}

impl Relabel {
    fn read(&self) -> Result<(), String> {
        let read = PushRelabel::read(&*self.fs, &self.path);
        self.successful.set(i64::from(read.is_ok()));
        self.ingest
            .set_relabel(read.map_err(|error| error.to_string())?);
        Ok(())
    }
}

fn successful(registry: &Registry) -> Result<IntGauge, Failure> {
    let registered = || -> prometheus::Result<IntGauge> {
        let gauge = IntGauge::new(
            "millrace_ingest_relabel_last_reload_successful",
            "Whether the last attempt to read ingest.relabel_file succeeded",
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    registered().map_err(|error| Failure::Data(format!("metrics: {error}")))
}

/// What tells this machine from others: its name, and where the process listens.
fn machine(fs: &dyn Fs, config: &Config) -> String {
    format!("{} {}", host_name(fs), config.top.listen)
}

/// How others may reach this process: the machine's name, and the port of `listen`.
pub fn host_and_port(fs: &dyn Fs, config: &Config) -> String {
    format!("{}:{}", host_name(fs), config.top.listen.port())
}

fn host_name(fs: &dyn Fs) -> String {
    let mut name = [0; 256];
    let file = fs.open(std::path::Path::new("/proc/sys/kernel/hostname"));
    // Without a name machines may ask at the same moments, which harms nobody.
    let len = file
        .and_then(|file| file.read_at(&mut name, 0))
        .unwrap_or(0);
    String::from_utf8_lossy(&name[..len]).trim().to_owned()
}

/// `POST /-/reload`, in Prometheus's words; without `watched` it is not to be done.
pub async fn over_http(app: Arc<App>, watched: Option<Arc<Watched>>) -> Response {
    let Some(watched) = watched else {
        return (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.").into_response();
    };
    if app.parts().is_none() {
        return routes::not_open_yet(&app);
    }
    match reload(&app, watched).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => {
            let text = format!("failed to reload config: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

/// Reloads on each SIGHUP. Ends only with its task.
pub async fn on_hangup(app: Arc<App>, watched: Arc<Watched>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        info!(signal = "SIGHUP", "reading files again");
        // The error is in the log.
        drop(reload(&app, watched.clone()).await);
    }
}

/// Reads all again; parts that are not open yet read their files when they are opened.
async fn reload(app: &Arc<App>, watched: Arc<Watched>) -> Result<(), String> {
    let app = app.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut errors = watched.look();
        let reloader = app.parts().and_then(|parts| parts.reloader.as_ref());
        errors.extend(reloader.and_then(|reloader| reloader.reload().err()));
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors.join("; ")),
        }
    });
    reading.await.map_err(|error| format!("a panic: {error}"))?
}
