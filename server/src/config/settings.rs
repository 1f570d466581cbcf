//! The table of all settings: the one place that says which there are, what type each has, its
//! default and what it does. The typed structs, the `--set` keys, the environment variables,
//! `millrace config` and `docs/configuration.md` all come from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::{Bytes, Kind, LogFilter, LogFormat, Raw};

/// One row of the table.
pub struct Setting {
    /// As it stands in the file, dotted: `ingest.max_age`.
    pub key: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What the reference page calls its type.
    pub kind: &'static str,
    /// Whether its value is never printed.
    pub secret: bool,
    /// Takes a value as it was written.
    pub set: fn(&mut Parsed, &Raw) -> Result<(), String>,
    /// The value as TOML.
    pub show: fn(&Parsed) -> String,
}

impl Setting {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "{ENVIRONMENT_PREFIX}{}",
            self.key.replace('.', "_").to_uppercase()
        )
    }

    /// Its section and its name in there.
    #[must_use]
    pub fn split(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').unwrap_or(("", self.key))
    }
}

/// Begins the names of all environment variables that set something.
pub const ENVIRONMENT_PREFIX: &str = "MILLRACE_";

/// The setting of that key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $name:ident [$prefix:literal] {
            $( $(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:literal; )+
        }
    )+) => {
        /// All settings with their types. Not checked yet against one another: see
        /// [`Config`](super::Config).
        #[derive(Clone, Debug)]
        pub struct Parsed {
            $( $(#[doc = $section_doc])+ pub $section: $name, )+
        }

        impl Default for Parsed {
            fn default() -> Self {
                Self { $( $section: $name::default(), )+ }
            }
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug)]
            pub struct $name {
                $( $(#[doc = $doc])+ pub $field: $ty, )+
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $(
                        $field: <$ty as Kind>::read(&Raw::Text($default.to_owned()))
                            .expect("every default is read by a test"),
                    )+ }
                }
            }
        )+

        /// The sections with what each is about.
        pub static SECTIONS: &[(&str, &str)] = &[ $(
            ($prefix, concat!($($section_doc),+)),
        )+ ];

        /// The table, in the order of the reference page.
        pub static SETTINGS: &[Setting] = &[ $( $(
            Setting {
                key: concat!($prefix, stringify!($field)),
                doc: concat!($($doc),+),
                kind: <$ty as Kind>::NAME,
                secret: <$ty as Kind>::SECRET,
                set: |parsed, raw| {
                    parsed.$section.$field = <$ty as Kind>::read(raw)?;
                    Ok(())
                },
                show: |parsed| <$ty as Kind>::to_toml(&parsed.$section.$field),
            },
        )+ )+ ];
    };
}

settings! {
    /// Where the server is reached, and where it keeps its data.
    top: Top [""] {
        /// Address and port of the HTTP server. Port 0 takes a free one and says which.
        listen: SocketAddr = "127.0.0.1:9009";
        /// Directory of queue and store. One process at a time holds it.
        data_dir: PathBuf = "./data";
    }

    /// Connections and the life of the process.
    server: Server ["server."] {
        /// There is no authentication yet, so an address that others can reach is refused.
        /// `true` says that anyone who reaches it may read and write everything.
        allow_public_without_auth: bool = "false";
        /// Open connections at most; more wait in the system's backlog.
        max_connections: usize = "4096";
        /// Open connections at most from one address; more are closed at once.
        max_connections_per_peer: usize = "256";
        /// The head of a request must be complete after this time.
        header_timeout: Duration = "5s";
        /// A body must bring `body_min_rate` on average in every stretch of this length, or end.
        body_timeout: Duration = "30s";
        /// Bytes a second that a body must bring, and that a reader of an answer must take.
        body_min_rate: Bytes = "1KiB";
        /// A reader of an answer must take `body_min_rate` in every stretch of this length.
        write_timeout: Duration = "30s";
        /// A connection without a request is closed after this time.
        idle_timeout: Duration = "60s";
        /// On SIGTERM, requests in flight get this long to end.
        shutdown_timeout: Duration = "20s";
    }

    /// What the push endpoints take. See [pushing](push.md) for the answers.
    ingest: Ingest ["ingest."] {
        /// Oldest timestamp taken, before now. `none` takes any.
        max_age: Option<Duration> = "30d";
        /// Newest timestamp taken, ahead of now. `none` takes any.
        max_ahead: Option<Duration> = "10m";
        /// Longest body as it is sent.
        max_body: Bytes = "10MiB";
        /// Longest body after decompression.
        max_decoded: Bytes = "32MiB";
        /// Samples in one request at most.
        max_samples: usize = "200000";
        /// Series in one request at most.
        max_series: usize = "50000";
        /// Labels of one series at most.
        max_labels: usize = "40";
        /// Longest label name, in bytes.
        max_label_name: Bytes = "256B";
        /// Longest label value, in bytes.
        max_label_value: Bytes = "4KiB";
        /// Longest label set, names and values together.
        max_series_bytes: Bytes = "16KiB";
        /// Memory for decoding, of all requests together. A request that finds none is answered
        /// 503.
        decode_memory: Bytes = "256MiB";
        /// Bytes that wait for the queue at most, per partition; beyond it requests are answered
        /// 503.
        max_pending: Bytes = "64MiB";
        /// How long an append waits for others to join it while another is in flight.
        linger: Duration = "2ms";
        /// Requests that arrive together share a batch of this size at most.
        max_batch: Bytes = "1MiB";
    }

    /// The embedded queue.
    queue: Queue ["queue."] {
        /// Number of partitions, and of shards of the store. Fixed when the data directory is
        /// created.
        partitions: u32 = "4";
        /// A series goes to the partition of the first of these labels that it has; of all its
        /// labels if it has none. Fixed when the data directory is created.
        shard_key: Vec<String> = "instance,host,hostname,device,device_id";
        /// Size of a log file.
        segment_bytes: Bytes = "64MiB";
        /// Records older than this go, once they are in sealed blocks.
        retention_age: Option<Duration> = "1d";
        /// The oldest records of a partition go beyond this size, once they are in sealed blocks.
        retention_bytes: Option<Bytes> = "1GiB";
    }

    /// The store.
    store: Store ["store."] {
        /// Samples in memory at most, per shard; full, they are sealed into a block.
        memtable_bytes: Bytes = "64MiB";
        /// Samples in memory are sealed after this time at the latest.
        memtable_max_age: Duration = "1h";
        /// Length of time that one block covers.
        block_window: Duration = "2h";
    }

    /// Queries.
    query: Query ["query."] {
        /// Longest time that a query may take.
        timeout: Duration = "30s";
        /// How far an instant selector looks back.
        lookback: Duration = "5m";
        /// Samples that one query may hold at most.
        max_samples: usize = "50000000";
        /// Longest expression, in bytes.
        max_query_bytes: Bytes = "16KiB";
        /// Queries that run at once. 0 stands for two per processor.
        concurrency: usize = "4";
        /// Queries that wait for their turn at most; more are answered 503.
        max_waiting: usize = "64";
    }

    /// Logs, on standard error.
    log: Log ["log."] {
        /// Level, or levels by part.
        level: LogFilter = "info";
        /// For people or for machines.
        format: LogFormat = "text";
    }
}
