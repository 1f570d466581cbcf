//! `millrace export`: series as JSON lines or CSV on standard output or in a file.

use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use millrace_log::fs::{Fs as _, FsFile, OsFs};
use millrace_model::{Matcher, TenantId, TimeRange, TimestampMs};
use millrace_query::{Engine, EngineOptions};
use millrace_store::Store;

use super::offline::{Offline, data};
use super::progress::Progress;
use super::tail::moment;
use crate::commands::client;
use crate::config::Config;
use crate::export::SAMPLES_PER_LINE;
use crate::export::lines::{Format, csv_header, csv_lines, json_line};
use crate::failure::Failure;
use crate::options;
use crate::source::PartSource;

/// Written in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;

/// What, from where, how.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which series: PromQL selectors, such as 'temperature{site="north"}'; all if none is given
    pub selectors: Vec<String>,
    /// A running server to ask; without it the data directory is read, which no server may have open
    #[arg(long)]
    pub url: Option<String>,
    /// How they are written
    #[arg(long, value_enum, default_value_t = FormatArg::Json)]
    pub format: FormatArg,
    /// Only samples from this moment on: RFC 3339, Unix seconds, or how long ago (1h)
    #[arg(long, value_parser = moment)]
    pub start: Option<TimestampMs>,
    /// Only samples up to this moment
    #[arg(long, value_parser = moment)]
    pub end: Option<TimestampMs>,
    /// A file, which must not be there; standard output if not given
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// Whose series, of a data directory
    #[arg(long)]
    pub tenant: Option<TenantId>,
}

/// How series are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// JSON lines, as VictoriaMetrics writes and reads them
    Json,
    /// A line for each sample, behind a header
    Csv,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Json => Self::Json,
            FormatArg::Csv => Self::Csv,
        }
    }
}

/// Writes the series.
///
/// # Errors
///
/// A selector that is none; a server that does not answer; a directory that cannot be read; an output
/// that cannot be written.
pub fn run(config: &Config, args: &ExportArgs) -> Result<(), Failure> {
    let mut out = Output::open(args.output.as_deref())?;
    match &args.url {
        Some(url) => live(url, args, &mut out)?,
        None => stopped(config, args, &mut out)?,
    }
    out.finish()
}

fn live(url: &str, args: &ExportArgs, out: &mut Output) -> Result<(), Failure> {
    let url = format!("{}/api/v1/export", url.trim_end_matches('/'));
    let mut form = Vec::new();
    let all = [ALL.to_owned()];
    let selectors = if args.selectors.is_empty() {
        &all[..]
    } else {
        &args.selectors
    };
    form.extend(selectors.iter().map(|s| ("match[]", s.clone())));
    let seconds = |moment: TimestampMs| format!("{}", moment.0 as f64 / 1e3);
    form.extend(args.start.map(|moment| ("start", seconds(moment))));
    form.extend(args.end.map(|moment| ("end", seconds(moment))));
    let format = match args.format {
        FormatArg::Json => "json",
        FormatArg::Csv => "csv",
    };
    form.push(("format", format.to_owned()));
    let body: Vec<String> = form
        .iter()
        .map(|(name, value)| format!("{name}={}", crate::query::escape(value)))
        .collect();
    let client = client::built(client::builder()?.timeout(None))?;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Client(format!("{url} does not answer to the end: {error}"))
    };
    let request = client.post(&url).body(body.join("&"));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let mut answer = request
        .send()
        .map_err(|error| failed(&client::why(&error)))?;
    if !answer.status().is_success() {
        let status = answer.status();
        // Without its text the status must do.
        let text = answer.text().unwrap_or_default();
        return Err(Failure::Client(format!("{url}: {status}: {}", text.trim())));
    }
    // How much there is the server does not know before it has read it.
    let mut progress = Progress::new("export", "bytes", 0);
    let (mut piece, mut done) = (vec![0; PIECE_BYTES], 0);
    loop {
        let read = answer.read(&mut piece).map_err(|error| failed(&error))?;
        if read == 0 {
            progress.finish();
            return Ok(());
        }
        out.write(&piece[..read])?;
        done += read as u64;
        progress.set(done);
    }
}

/// Everything.
const ALL: &str = "{__name__=~\".+\"}";

fn stopped(config: &Config, args: &ExportArgs, out: &mut Output) -> Result<(), Failure> {
    let offline = Offline::open(config)?;
    let store = offline.whole_store(options::store(config))?;
    let engine = Engine::new(Arc::new(PartSource(store.all())), EngineOptions::default());
    let parse = |text: &String| {
        let parsed = engine.parse_selector(text);
        parsed.map_err(|error| data(format!("{text}: {error}")))
    };
    let mut selectors: Vec<Vec<Matcher>> =
        args.selectors.iter().map(parse).collect::<Result<_, _>>()?;
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    let tenant = args.tenant.clone().unwrap_or_else(TenantId::anonymous);
    let range = TimeRange {
        start: args.start.unwrap_or(TimeRange::ALL.start),
        end: args.end.unwrap_or(TimeRange::ALL.end),
    };
    write_store(&store, &tenant, &selectors, range, args.format.into(), out)
}

fn write_store(
    store: &Store,
    tenant: &TenantId,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    format: Format,
    out: &mut Output,
) -> Result<(), Failure> {
    let names = match format {
        Format::Json => Vec::new(),
        Format::Csv => store.label_names(tenant, selectors, range).map_err(data)?,
    };
    let mut series = Vec::new();
    for matchers in selectors {
        series.append(&mut store.select(tenant, matchers, range).map_err(data)?);
    }
    series.sort_by(|a, b| a.labels().cmp(b.labels()));
    series.dedup_by(|a, b| a.labels() == b.labels());
    let mut progress = Progress::new("export", "series", series.len() as u64);
    let mut lines = Vec::new();
    if format == Format::Csv {
        csv_header(&names, &mut lines);
    }
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    for (done, series) in (1..).zip(&series) {
        timestamps.clear();
        values.clear();
        series.read(&mut timestamps, &mut values).map_err(data)?;
        let pieces = timestamps.chunks(SAMPLES_PER_LINE);
        for (timestamps, values) in pieces.zip(values.chunks(SAMPLES_PER_LINE)) {
            match format {
                Format::Json => json_line(series.labels(), timestamps, values, &mut lines),
                Format::Csv => {
                    csv_lines(&names, series.labels(), timestamps, values, &mut lines);
                }
            }
            if lines.len() >= PIECE_BYTES {
                out.write(&lines)?;
                lines.clear();
            }
        }
        progress.set(done);
    }
    out.write(&lines)?;
    progress.finish();
    Ok(())
}

/// Standard output, or a new file.
enum Output {
    Stdout,
    File(Box<dyn FsFile>, u64),
}

impl Output {
    fn open(path: Option<&std::path::Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Stdout);
        };
        let file = OsFs.create_new(path);
        let file = file.map_err(|error| data(format!("{}: {error}", path.display())))?;
        Ok(Self::File(file, 0))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::File(file, at) => {
                let from = *at;
                *at += bytes.len() as u64;
                file.write_all_at(bytes, from)
            }
        };
        written.map_err(|source| Failure::System {
            what: "the output cannot be written",
            source,
        })
    }

    fn finish(self) -> Result<(), Failure> {
        let done = match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File(file, _) => file.sync_data(),
        };
        done.map_err(|source| Failure::System {
            what: "the output cannot be written",
            source,
        })
    }
}
