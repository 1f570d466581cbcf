//! `millrace token`: makes, lists, revokes and rotates tokens. Works on the file of tokens, whether servers
//! run on it or not; they take a change within seconds.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use millrace_auth::{
    Act, AuditLog, AuthError, ForTenant, NewToken, Scope, Secret, Token, TokensFile, Who,
};
use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::{Clock, TenantId, TimestampMs};
use serde_json::{Value, json};

use crate::config::Config;
use crate::failure::Failure;

/// What to do with tokens.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Which command.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, this once: only its hash is kept
    ///
    /// Standard output has the token and nothing else, so that `millrace token create … > token` makes a
    /// file for Prometheus's `credentials_file`.
    Create(CreateArgs),
    /// Show which tokens there are, without their secrets
    List(ListArgs),
    /// Let a token be refused from now on
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
    /// Make a new token with the same rights; the old one goes on for the overlap
    Rotate(RotateArgs),
}

/// What the new token may do.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name, for people
    #[arg(long)]
    pub name: String,
    /// What it may do: write, read, monitor, admin, fleet; may be given several times
    #[arg(long = "scope", required = true, value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// Whose data it is for
    #[arg(long, default_value = "anonymous", value_parser = tenant)]
    pub tenant: TenantId,
    /// For the tenant that X-Scope-OrgID names; only for a proxy that sets it (auth.trust_tenant_header)
    #[arg(long, conflicts_with = "tenant")]
    pub any_tenant: bool,
    /// A label that everything it writes gets, and that everything it reads has; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// How long it is good, such as 90d; without it, until it is revoked
    #[arg(long, value_parser = crate::cli::duration)]
    pub expires: Option<Duration>,
}

/// How to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// How to rotate.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// The old token's id, as `list` shows it
    pub id: String,
    /// How long the old token is still good
    #[arg(long, default_value = "24h", value_parser = crate::cli::duration)]
    pub overlap: Duration,
    /// How long the new one is good; without it, as long as the old one's whole life
    #[arg(long, value_parser = crate::cli::duration)]
    pub expires: Option<Duration>,
}

fn scope(text: &str) -> Result<Scope, String> {
    text.parse().map_err(|error: AuthError| error.to_string())
}

fn tenant(text: &str) -> Result<TenantId, String> {
    let tenant = text.parse::<TenantId>();
    tenant.map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let (name, value) = pair.ok_or("must be name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Does it.
///
/// # Errors
///
/// A file that cannot be read or written; a token that is not there or cannot be.
pub fn run(config: &Config, args: &TokenArgs) -> Result<(), Failure> {
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let now = clock.now();
    let file = TokensFile::new(fs.clone(), config.tokens_file());
    let audit = Noting {
        log: AuditLog::new(fs, clock, config.audit_file()),
    };
    match &args.command {
        TokenCommand::Create(create) => {
            let made = file.create(new_token(create, now), now);
            let id = made.as_ref().ok().map(|secret| secret.id().to_string());
            let detail = json!({
                "id": id, "name": create.name, "tenant": for_tenant(create).to_string(),
                "scopes": create.scopes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            });
            let noted = audit.note("token_create", detail, &made);
            // IMPORTANT: first of all. There is no other copy of it.
            show(&file, &made.map_err(failed)?, config)?;
            noted
        }
        TokenCommand::List(list) => {
            let tokens = file.list().map_err(failed)?;
            crate::print(&match list.json {
                true => as_json(&tokens, now),
                false => table(&tokens, now),
            })
        }
        TokenCommand::Revoke { id } => {
            let revoked = file.revoke(id, now);
            let noted = audit.note("token_revoke", json!({ "id": shown(id) }), &revoked);
            revoked.map_err(failed)?;
            noted
        }
        TokenCommand::Rotate(rotate) => {
            let made = file.rotate(&rotate.id, rotate.overlap, rotate.expires, now);
            let id = made.as_ref().ok().map(|secret| secret.id().to_string());
            let detail = json!({
                "id": shown(&rotate.id), "new": id, "overlap_seconds": rotate.overlap.as_secs(),
            });
            let noted = audit.note("token_rotate", detail, &made);
            show(&file, &made.map_err(failed)?, config)?;
            noted
        }
    }
}

fn failed(error: AuthError) -> Failure {
    Failure::Refused(error.to_string())
}

/// As much of an id as is none of a secret, if somebody gave a whole token instead.
fn shown(id: &str) -> String {
    id.chars().take(16).collect()
}

fn for_tenant(create: &CreateArgs) -> ForTenant {
    match create.any_tenant {
        true => ForTenant::Header,
        false => ForTenant::One(create.tenant.clone()),
    }
}

fn new_token(create: &CreateArgs, now: TimestampMs) -> NewToken {
    NewToken {
        name: create.name.clone(),
        tenant: for_tenant(create),
        scopes: create.scopes.iter().copied().collect(),
        labels: create.labels.clone(),
        expires: create.expires.map(|life| now.saturating_add(life)),
    }
}

struct Noting {
    log: AuditLog,
}

impl Noting {
    fn note<T>(
        &self,
        what: &str,
        detail: Value,
        outcome: &Result<T, AuthError>,
    ) -> Result<(), Failure> {
        let outcome = match outcome {
            Ok(_) => "done".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        let act = Act {
            who: Who::User(rustix::process::getuid().as_raw()),
            what: what.to_owned(),
            detail,
            from: "cli".to_owned(),
            outcome,
        };
        let noted = self.log.note(&act);
        noted.map_err(|error| {
            Failure::Refused(format!("done, but not noted in the audit log: {error}"))
        })
    }
}

/// The token on standard output, all else on standard error.
fn show(file: &TokensFile, secret: &Secret, config: &Config) -> Result<(), Failure> {
    eprintln!(
        "token {} is in {:?}; this is shown only once:",
        secret.id(),
        file.path()
    );
    if !config.auth.enabled {
        eprintln!("(servers ask for tokens only with auth.enabled=true)");
    }
    crate::print(&format!("{}\n", secret.reveal()))
}

fn time(time: Option<TimestampMs>) -> String {
    time.and_then(|time| DateTime::from_timestamp_millis(time.0))
        .map_or_else(
            || "-".to_owned(),
            |time| time.to_rfc3339_opts(SecondsFormat::Secs, true),
        )
}

fn labels(token: &Token) -> String {
    let pairs = token.labels.iter();
    let texts: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if texts.is_empty() {
        "-".to_owned()
    } else {
        texts.join(",")
    }
}

fn scopes(token: &Token) -> Vec<String> {
    token.scopes.iter().map(ToString::to_string).collect()
}

fn as_json(tokens: &[Token], now: TimestampMs) -> String {
    let shown: Vec<Value> = tokens
        .iter()
        .map(|token| {
            json!({
                "id": token.id.as_str(),
                "name": token.name,
                "state": token.state(now).as_str(),
                "tenant": token.tenant.to_string(),
                "scopes": scopes(token),
                "labels": token.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                "created_ms": token.created.0,
                "expires_ms": token.expires.map(|time| time.0),
                "revoked_ms": token.revoked.map(|time| time.0),
                "replaces": token.replaces.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    format!("{:#}\n", Value::Array(shown))
}

fn table(tokens: &[Token], now: TimestampMs) -> String {
    let head = [
        "ID", "NAME", "STATE", "TENANT", "SCOPES", "LABELS", "CREATED", "EXPIRES",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| {
        [
            token.id.to_string(),
            token.name.clone(),
            token.state(now).as_str().to_owned(),
            token.tenant.to_string(),
            scopes(token).join(","),
            labels(token),
            time(Some(token.created)),
            time(token.expires),
        ]
    }));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
