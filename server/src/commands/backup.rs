//! `millrace backup`: takes a backup, through the server that runs on the data directory or, if none does,
//! from the directory itself; and verifies backups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::Clock as _;
use millrace_store::StoreError;
use millrace_store::backup::{self, Backup};
use serde_json::Value;

use super::offline::{Offline, data, held_queue};
use super::progress::Progress;
use crate::commands::client;
use crate::config::Config;
use crate::failure::Failure;
use crate::{edge, options};

/// Where to, or what else.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BackupArgs {
    /// What to do with a backup that there is
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// Where the backup goes: an empty directory, or one that is not there yet
    #[arg(required = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The server that has the data directory; its setting `server.admin_api` must be on. The one of
    /// the setting `listen` if not given
    #[arg(long)]
    pub url: Option<String>,
    /// Leave out what is not in blocks yet: a restored store reads it from the queue again
    #[arg(long)]
    pub skip_head: bool,
}

/// What to do with a backup.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Restore it to a directory beside it, open that, compare counts and checksums, and remove it
    Verify(VerifyBackupArgs),
}

/// Which backup.
#[derive(Debug, Args)]
pub struct VerifyBackupArgs {
    /// The backup
    pub backup: PathBuf,
    /// Where it is restored to for the time; beside the backup if not given
    #[arg(long)]
    pub scratch: Option<PathBuf>,
}

/// Takes or verifies a backup, and says what is in it.
///
/// # Errors
///
/// A store that cannot be read, a server that refuses, a directory with something in it, a backup that
/// is damaged.
pub fn run(config: &Config, args: &BackupArgs) -> Result<(), Failure> {
    match (&args.command, &args.dir) {
        (Some(BackupCommand::Verify(args)), _) => verify(config, args),
        (None, Some(dir)) => take(config, args, dir),
        (None, None) => Err(Failure::Data("where is the backup to go?".to_owned())),
    }
}

/// What is in a backup, a line for each shard.
#[must_use]
pub fn describe(backup: &Backup) -> String {
    let mut out = String::new();
    for shard in &backup.shards {
        out.push_str(&format!(
            "store partition {}: applied below {}, sealed below {}, {} blocks with {} samples, {} records \
             in the WAL\n",
            shard.partition,
            shard.applied,
            shard.sealed,
            shard.blocks,
            shard.samples,
            shard.wal_records
        ));
    }
    for (partition, records) in &backup.records {
        out.push_str(&format!(
            "queue partition {partition}: records {} to {}\n",
            records.start, records.end
        ));
    }
    if backup.records.is_empty() {
        out.push_str("no queue: a restored store goes on reading from the brokers\n");
    }
    out.push_str(&format!(
        "{} files, {} bytes\n",
        backup.files.len(),
        backup.bytes()
    ));
    out
}

fn take(config: &Config, args: &BackupArgs, dir: &Path) -> Result<(), Failure> {
    refuse_full(dir)?;
    let taken = if args.url.is_some() {
        live(config, args, dir)?
    } else {
        match Offline::open(config) {
            Ok(offline) => stopped(config, &offline, !args.skip_head, dir)?,
            Err(Failure::Locked { .. }) => live(config, args, dir)?,
            Err(other) => return Err(other),
        }
    };
    crate::print(&describe(&taken))
}

/// Before anything was done for it.
fn refuse_full(dir: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Data(format!("{}: {error}", dir.display()));
    let there = OsFs.exists(dir).map_err(failed)?;
    if there && !OsFs.list(dir).map_err(failed)?.is_empty() {
        return Err(Failure::Data(format!("{} is not empty", dir.display())));
    }
    Ok(())
}

/// From a directory that no server has: it is opened, as a start would.
fn stopped(
    config: &Config,
    offline: &Offline,
    with_wal: bool,
    dir: &Path,
) -> Result<Backup, Failure> {
    let store = offline.whole_store(options::store(config))?;
    let queue = held_queue(config, &config.top.data_dir)?;
    let snapshot = || store.snapshot(with_wal);
    let (snapshot, held) = match &queue {
        Some(queue) => {
            let (snapshot, held) = queue.hold_behind(snapshot).map_err(data)?;
            (snapshot.map_err(data)?, Some(held))
        }
        None => (snapshot().map_err(data)?, None),
    };
    let mut progress = Progress::new("backup", "files", 0);
    let mut done = 0;
    let taken = backup::write(
        &*offline.fs,
        &offline.store,
        dir,
        &snapshot,
        held.as_ref(),
        SystemClock.now(),
        &mut |_| {
            done += 1;
            progress.set(done);
        },
    )
    .map_err(data)?;
    progress.finish();
    store.close().map_err(data)?;
    Ok(taken)
}

/// From the server that has the directory: it takes a snapshot there, which is then moved.
fn live(config: &Config, args: &BackupArgs, dir: &Path) -> Result<Backup, Failure> {
    let admin = edge::own_admin_address(config).unwrap_or(config.top.listen);
    let url = args
        .url
        .clone()
        .unwrap_or_else(|| format!("http://{}", reachable(admin)));
    let url = format!(
        "{}/api/v1/admin/tsdb/snapshot?skip_head={}",
        url.trim_end_matches('/'),
        args.skip_head
    );
    let client = client::built(client::builder()?.timeout(None))?;
    let answer = client
        .post(&url)
        .send()
        .and_then(|response| response.json::<Value>())
        .map_err(|error| {
            Failure::Client(format!(
                "{url} does not answer: {}; --url names the server that has the data directory",
                client::why(&error)
            ))
        })?;
    let path = answer["data"]["path"].as_str().map(PathBuf::from);
    let Some(path) = path.filter(|_| answer["status"] == "success") else {
        return Err(Failure::Client(format!(
            "{url}: {}",
            answer["error"]
                .as_str()
                .unwrap_or("the answer is no snapshot's")
        )));
    };
    let taken = Backup::read(&OsFs, &path).map_err(|error: StoreError| {
        data(format!(
            "{error}; the server has taken the snapshot, but on another machine or where this user cannot read"
        ))
    })?;
    backup::relocate(&OsFs, &path, dir).map_err(data)?;
    Ok(taken)
}

/// Where a server that listens everywhere can be reached from here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn verify(config: &Config, args: &VerifyBackupArgs) -> Result<(), Failure> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let list = Backup::read(&*fs, &args.backup).map_err(data)?;
    let scratch = args.scratch.clone().unwrap_or_else(|| {
        let mut name = args.backup.as_os_str().to_owned();
        name.push(".verify");
        PathBuf::from(name)
    });
    let (mut progress, mut done) = (Progress::new("verify", "bytes", list.bytes()), 0);
    let verified = backup::verify(
        &fs,
        Arc::new(SystemClock),
        &args.backup,
        &scratch,
        options::store(config),
        &mut |bytes| {
            done += bytes;
            progress.set(done);
        },
    );
    let (list, findings) = verified.map_err(|error| {
        data(format!(
            "DAMAGED: {error}; `millrace verify {}` names all damages",
            args.backup.display()
        ))
    })?;
    progress.finish();
    if findings.is_empty() {
        return crate::print(&format!("{}all is well\n", describe(&list)));
    }
    for finding in &findings {
        let (path, what) = (finding.path.display(), &finding.what);
        crate::print(&format!("DAMAGED: {path}: {what}\n"))?;
    }
    Err(data(format!(
        "what was restored is not what the backup lists: {} differences",
        findings.len()
    )))
}
