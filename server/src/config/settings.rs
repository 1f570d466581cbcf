//! The table of all settings: the one place that says which there are, what type each has, its
//! default and what it does. The typed structs, the `--set` keys, the environment variables,
//! `millrace config` and `docs/configuration.md` all come from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::{
    Advertise, AutoCount, Bytes, DeltaSetting, DurabilitySetting, Kind, LogFilter, LogFormat,
    Properties, QueueBackend, RateLimitedSetting, Raw, Roles, Secret, SecurityProtocol,
    StringFieldsSetting, TranslationStrategySetting, WalSyncSetting,
};

/// One row of the table.
pub struct Setting {
    /// As it stands in the file, dotted: `ingest.max_age`.
    pub key: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What the reference page calls its type.
    pub kind: &'static str,
    /// Whether its value as it was written is never printed.
    pub secret: bool,
    /// Takes a value as it was written.
    pub set: fn(&mut Parsed, &Raw) -> Result<(), String>,
    /// The value as TOML, without what is secret.
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
        /// Directory of queue and store. One process at a time holds it; one without a store and an
        /// embedded queue has none.
        data_dir: PathBuf = "./data";
        /// The parts that this process runs: `ingest`, `store`, `query`, any of them, or `all`.
        roles: Roles = "all";
    }

    /// Connections and the life of the process.
    server: Server ["server."] {
        /// An address that others can reach is refused unless `auth.enabled` is on. `true` says that
        /// anyone who reaches it may read and write everything.
        allow_public_without_auth: bool = "false";
        /// A second address for what changes or shows the whole server: `/api/v1/admin`, `/api/v1/dlq`,
        /// `/api/v1/queue`, `/-/reload`; without TLS if it is a loopback address. `listen` then serves these
        /// no more. `none`: they are at `listen` if that is a loopback address, and nowhere otherwise. The same
        /// address as `listen`: they are there, whoever can reach it. The server's own figures (`/metrics` and
        /// what else needs `monitor`) are at both.
        admin_listen: Option<SocketAddr> = "none";
        /// Open connections at most; more wait in the system's backlog. `server.admin_listen` takes 64 of them.
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
        /// Requests at once on one connection that speaks HTTP/2. 0: HTTP/1.1 only.
        http2_streams: u32 = "32";
        /// On SIGTERM, requests in flight get this long to end.
        shutdown_timeout: Duration = "20s";
        /// Whether `/api/v1/admin`, `/api/v1/dlq` and `/api/v1/queue/replay` answer: deletes, what
        /// retention would do, dead letters, replays into the live store.
        admin_api: bool = "false";
    }

    /// TLS of `listen`, and of `server.admin_listen` if others can reach that. The files are read again
    /// when they change.
    tls: Tls ["server.tls."] {
        /// Our certificate and those that vouch for it (PEM), ours first. `none`: no TLS.
        certificate_file: Option<PathBuf> = "none";
        /// The key of our certificate (PEM).
        key_file: Option<PathBuf> = "none";
        /// The certificates (PEM) of those who may vouch for clients. Each client must then show one, beside
        /// its token.
        client_ca_file: Option<PathBuf> = "none";
    }

    /// Who may do what ([security.md](security.md)).
    auth: Auth ["auth."] {
        /// Whether a request needs a token. Without, everybody who reaches the server may do everything, as
        /// the anonymous tenant, and tokens are not looked at.
        enabled: bool = "false";
        /// The file of tokens, which `millrace token` changes; read again when it changes. `none`:
        /// `tokens.json` in the data directory.
        tokens_file: Option<PathBuf> = "none";
        /// Whether the header `X-Scope-OrgID` names the tenant: only behind a proxy that sets it itself. With
        /// `auth.enabled` it holds for tokens that were made for any tenant.
        trust_tenant_header: bool = "false";
        /// The file to which administrative acts are appended. `none`: `audit.jsonl` in the data directory.
        audit_file: Option<PathBuf> = "none";
    }

    /// What the push endpoints take, and what decoding may cost.
    ingest: Ingest ["ingest."] {
        /// Oldest timestamp taken, before now. `none` takes any.
        max_age: Option<Duration> = "30d";
        /// Newest timestamp taken, ahead of now. `none` takes any.
        max_ahead: Option<Duration> = "10m";
        /// Threads that decode. `auto` stands for one per processor.
        decode_threads: AutoCount = "auto";
        /// Requests that wait for a decoding thread at most; more are answered 503.
        decode_queue: usize = "256";
        /// Memory for the bodies of all requests in hand, encoded and decoded. A request that finds
        /// none is answered 503.
        decode_memory_bytes: Bytes = "256MiB";
        /// A YAML file of rules for pushed series: drop, keep, rename, add labels
        /// ([scraping.md](scraping.md)). Read again by `POST /-/reload` and SIGHUP.
        relabel_file: Option<PathBuf> = "none";
        /// Memory for the cache of known series.
        series_cache_bytes: Bytes = "256MiB";
        /// Samples that are refused for a limit of their tenant, or as too old or too far ahead, are
        /// kept as dead letters in so many bytes of this process's data directory, to be queued once the
        /// limit is raised.
        keep_rejected: Option<Bytes> = "none";
        /// Line protocol: what stands between measurement and field in a metric's name.
        influx_separator: String = "_";
        /// Line protocol: what becomes of string fields, which cannot be stored. `skip` passes over
        /// them and counts them, `reject` refuses their line.
        influx_string_fields: StringFieldsSetting = "skip";
        /// Line protocol: the label that takes `db` or `bucket` of a request.
        influx_database_label: Option<String> = "none";
    }

    /// How OTLP metrics become series: what Prometheus' `otlp:` block sets.
    otlp: Otlp ["ingest.otlp."] {
        /// Names of metrics and attributes: `UnderscoreEscapingWithSuffixes`,
        /// `UnderscoreEscapingWithoutSuffixes`, `NoUTF8EscapingWithSuffixes` or `NoTranslation`.
        translation_strategy: TranslationStrategySetting = "UnderscoreEscapingWithSuffixes";
        /// Resource attributes that become labels of every series.
        promote_resource_attributes: Vec<String> = "";
        /// Whether all of them do, but for `ignore_resource_attributes`.
        promote_all_resource_attributes: bool = "false";
        /// Exceptions from `promote_all_resource_attributes`.
        ignore_resource_attributes: Vec<String> = "";
        /// Whether `service.name`, `service.namespace` and `service.instance.id` stay in
        /// `target_info` beside `job` and `instance`.
        keep_identifying_resource_attributes: bool = "false";
        /// Whether name, version, schema and attributes of the scope become labels `otel_scope_…`.
        promote_scope_metadata: bool = "false";
        /// What becomes of delta temporality: `accumulate` keeps each delta as a sample of a series with
        /// `__temporality__="delta"`, which `rate`, `increase` and `irate` add up; `store` keeps it without
        /// that label, for `sum_over_time`; `refuse` names it in the answer.
        delta: DeltaSetting = "accumulate";
    }

    /// Bounds of one request. A value equal to its limit passes.
    limits: Limits ["ingest.limits."] {
        /// The body as it is sent.
        body_bytes: Bytes = "10MiB";
        /// The body after decompression.
        decoded_bytes: Bytes = "32MiB";
        /// Samples.
        samples: usize = "200000";
        /// Distinct series.
        series: usize = "50000";
        /// Labels of one series, its metric name included.
        labels: usize = "40";
        /// The name of a label or metric.
        label_name_bytes: Bytes = "256B";
        /// The value of a label.
        label_value_bytes: Bytes = "4KiB";
        /// All names and values of one series together.
        labels_bytes: Bytes = "16KiB";
    }

    /// Scraping, in the processes that have the part `ingest` ([scraping.md](scraping.md)).
    scrape: Scrape ["scrape."] {
        /// Prometheus's configuration file, of which `global`, `scrape_configs` and
        /// `scrape_config_files` are used. Read again by `POST /-/reload` and SIGHUP. `none` scrapes
        /// nothing.
        config_file: Option<PathBuf> = "none";
        /// The tenant that scraped series are of.
        tenant: String = "anonymous";
    }

    /// What one tenant may push, decided before it is answered. The file of overrides sets the same for
    /// single tenants, and what `ingest.limits`, `ingest.max_age` and `ingest.max_ahead` set.
    tenants: Tenants ["ingest.tenants."] {
        /// Series with samples in the last hour. Known ones go on at the limit, new ones are refused.
        active_series: Option<u64> = "5000000";
        /// Series that were not active before, in the last hour.
        new_series_per_hour: Option<u64> = "20000000";
        /// Samples a second.
        samples_per_second: Option<u64> = "none";
        /// Samples that may come at once. `none` stands for ten seconds of the rate.
        samples_burst: Option<u64> = "none";
        /// What a request beyond the rate is answered: 429, or 503 for senders that try again only then.
        rate_limited_status: RateLimitedSetting = "429";
        /// Processes that ingest: each counts for itself, so each takes this part of a tenant's limits.
        processes: u64 = "1";
        /// Active series that are kept count of, of all tenants together, at 8 to 18 bytes each.
        tracked_series: u64 = "8000000";
        /// File with limits of single tenants: for each a table `[tenant.NAME]` with such keys. Read
        /// again within seconds of a change; one that cannot be used changes nothing.
        overrides_file: Option<PathBuf> = "none";
    }

    /// The queue between ingest and store. `segment_bytes` and the retention are the embedded one's;
    /// a topic of Kafka has its own.
    queue: Queue ["queue."] {
        /// `embedded` is inside this process, on its disk; `kafka` is a topic of Apache Kafka, which
        /// lets the parts run in different processes.
        backend: QueueBackend = "embedded";
        /// Number of partitions, and of shards of the store. Fixed when the queue is created: `auto`
        /// stands for one per processor then, at most 8, and for what there is later. For Kafka,
        /// what the topic has; another number is refused.
        partitions: AutoCount = "auto";
        /// A series goes to the partition of the first of these labels that it has; of all its
        /// labels if it has none. Fixed when the queue is created, and the same in all processes.
        shard_key: Vec<String> = "instance,host,hostname,device,device_id";
        /// Length at which a log file is closed and the next one begun.
        segment_bytes: Bytes = "64MiB";
        /// Records older than this go, once the store has them in blocks.
        retention_age: Option<Duration> = "1d";
        /// Bytes kept, of all partitions together; beyond, the oldest go, once the store has them in
        /// blocks.
        retention_bytes: Option<Bytes> = "8GiB";
        /// Bytes that wait to become durable at most; beyond, requests are answered 503.
        max_pending_bytes: Bytes = "64MiB";
        /// Longest batch: requests that arrive together share one.
        max_batch_bytes: Bytes = "8MiB";
        /// How long an append waits for others to join it. While one append is in flight the next
        /// one gathers anyway.
        linger: Duration = "0s";
    }

    /// The queue on Apache Kafka ([kafka.md](kafka.md)).
    kafka: Kafka ["queue.kafka."] {
        /// Brokers to begin with: `host:port`, several for the case that one is away.
        brokers: Vec<String> = "";
        /// The topic. `millrace queue create` makes it as it should be.
        topic: String = "millrace";
        /// The consumer group under which the stores commit how far they are, for Kafka's own tools.
        group: String = "millrace";
        /// The least that an acknowledged append must survive: `replicated`, `disk` or `process`. A
        /// topic that gives less is refused at the start.
        minimum_durability: DurabilitySetting = "replicated";
        /// An append that nobody has acknowledged after this time is answered 503.
        delivery_timeout: Duration = "30s";
        /// Bytes of batches that may be on their way to the brokers.
        max_in_flight_bytes: Bytes = "64MiB";
        /// Longest record. The topic's `max.message.bytes` must leave room for it.
        max_batch_bytes: Bytes = "900kB";
        /// How the brokers are spoken to.
        security_protocol: SecurityProtocol = "plaintext";
        /// TLS: the certificates (PEM) of those who may vouch for the brokers. `none` takes the
        /// system's.
        tls_ca_file: Option<PathBuf> = "none";
        /// TLS: our own certificate (PEM), where the brokers ask for one.
        tls_certificate_file: Option<PathBuf> = "none";
        /// TLS: the key of our certificate (PEM).
        tls_key_file: Option<PathBuf> = "none";
        /// TLS: the file with the password of that key.
        tls_key_password_file: Option<PathBuf> = "none";
        /// TLS: the password of that key.
        tls_key_password: Secret = "none";
        /// SASL: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`.
        sasl_mechanism: String = "PLAIN";
        /// SASL: the user.
        sasl_username: Option<String> = "none";
        /// SASL: the file with the password. Its last line end is not part of it.
        sasl_password_file: Option<PathBuf> = "none";
        /// SASL: the password.
        sasl_password: Secret = "none";
        /// Further settings of librdkafka, `name=value` each. What exactly-once hangs on cannot be
        /// changed, and secrets belong into `properties_file`.
        properties: Properties = "";
        /// A file of further settings of librdkafka, `name=value` in each line, which may be secrets.
        properties_file: Option<PathBuf> = "none";
    }

    /// Where this process stands among others like it.
    cluster: Cluster ["cluster."] {
        /// This store is node `ordinal` of `nodes`, counted from 0: it owns the partitions `p` with
        /// `p % nodes == ordinal`. Several stores of one ordinal are replicas of one another.
        ordinal: u32 = "0";
        /// Number of nodes that share the partitions.
        nodes: u32 = "1";
        /// This replica's name for people. `none` takes host and port.
        replica: Option<String> = "none";
        /// The address, `host:port`, at which query processes reach this store, which it announces in
        /// `<topic>.control`. `auto`: the address that it listens on, where that is one and not all
        /// of the machine's. `none` announces nothing.
        advertise: Advertise = "auto";
        /// Time between two announcements. A store that is silent for 3.5 times as long is forgotten.
        announce_interval: Duration = "10s";
    }

    /// How queries find stores in other processes.
    fleet: Fleet ["fleet."] {
        /// Addresses of stores, `host:port` each, for a query process whose own store has not all
        /// partitions. Empty: those that announce themselves in `<topic>.control`.
        stores: Vec<String> = "";
        /// A file with the token by which stores are asked; its scope must be `fleet`. Read again when it
        /// changes.
        token_file: Option<PathBuf> = "none";
        /// Whether stores are spoken to by TLS, as they then are by everybody: `server.tls` of theirs.
        tls: bool = "false";
        /// TLS: the certificates (PEM) of those who may vouch for stores. `none` takes the system's. This file
        /// and the next two are read again when they change.
        tls_ca_file: Option<PathBuf> = "none";
        /// TLS: our own certificate (PEM), where stores ask for one.
        tls_certificate_file: Option<PathBuf> = "none";
        /// TLS: the key of our certificate (PEM).
        tls_key_file: Option<PathBuf> = "none";
        /// TLS: the name that stores' certificates must be for. `none`: the host by which each is reached.
        tls_server_name: Option<String> = "none";
        /// Time between two looks at each store: whether it answers, and how far it is.
        poll_interval: Duration = "500ms";
        /// A store must begin its answer within this time, or another replica is asked.
        first_byte_timeout: Duration = "5s";
        /// A store may be silent within an answer for this time.
        stall_timeout: Duration = "30s";
        /// Queries move to another replica of a shard when it is more than so many records ahead.
        switch_records: u64 = "64";
        /// Memory for what the stores answer to one read of a query. More is an error.
        max_read_bytes: Bytes = "512MiB";
        /// Memory for what the stores answer to all queries. More is answered 503.
        max_buffer_bytes: Bytes = "2GiB";
    }

    /// The store.
    store: Store ["store."] {
        /// When the write-ahead log is synced: `always`, `none`, or at this interval. Acknowledged
        /// samples never depend on it; it decides how much is read again from the queue after a
        /// power cut.
        wal_sync: WalSyncSetting = "1s";
        /// Length of a file of the write-ahead log.
        wal_segment_bytes: Bytes = "64MiB";
        /// A shard whose write-ahead log outgrows this is sealed.
        wal_bytes_max: Bytes = "512MiB";
        /// Memory for samples that are not in blocks yet, of all shards together, taken as it is
        /// needed. Half of it takes samples while the other half is sealed; a series takes some 450
        /// bytes and its samples.
        memtable_bytes: Bytes = "1GiB";
        /// Samples in memory are sealed into blocks after this time at the latest.
        memtable_max_age: Duration = "2h";
        /// Memory for the parts of blocks' indexes that queries have used lately; 0 keeps none.
        index_cache_bytes: Bytes = "64MiB";
        /// Records that cannot be applied are kept as dead letters; a shard stops at the first one
        /// beyond so many in ten minutes.
        dead_letters_max: usize = "100";
        /// Length of time that one block covers.
        block_window: Duration = "2h";
        /// Widths of the buckets of time for which blocks keep count, sum, lowest, highest, first, last
        /// and increase of each series. A multiple of another one costs nothing. Empty for none.
        rollups: Vec<Duration> = "5m,1h";
        /// Whether small and overlapping blocks are merged into larger ones.
        compaction: bool = "true";
        /// Bytes that merging writes in a second at most; 0 stands for no bound.
        compaction_rate: Bytes = "32MiB";
        /// How long a delete can be revoked. Nothing is removed for good before.
        delete_undo_window: Duration = "24h";
    }

    /// What the store keeps for how long. Nothing goes unless it is set.
    retention: Retention ["store.retention."] {
        /// Samples older than this go, block by block, and their rollups. `none` keeps them.
        age: Option<Duration> = "none";
        /// Samples older than this go, block by block, and their rollups stay: of each bucket a query
        /// then sees the last sample. `none` keeps the samples as long as the rollups.
        samples_age: Option<Duration> = "none";
        /// Rollups older than this go, but for those of the widest buckets. Not before the samples.
        fine_rollups_age: Option<Duration> = "none";
        /// Bytes of blocks kept; beyond, the oldest go. `none` keeps them.
        bytes: Option<Bytes> = "none";
        /// Percent of all blocks' bytes that go in an hour at most, beside as many as came in it, so that a mistaken age
        /// is noticed in time; 100 for no bound. `millrace retention --now` lets the rest go.
        hourly_percent: u32 = "10";
        /// File with other ages by tenant and label: an array of tables `rule` with `tenant`,
        /// `matchers` such as `["job=node", "path=~/api/.*"]`, and `age`; the first that fits counts.
        rules_file: Option<PathBuf> = "none";
        /// A clock that is further ahead than this of where it should be is not believed, until it
        /// has been so for a day.
        clock_jump_max: Duration = "1h";
    }

    /// Materialized views (views.md). Those of the API are kept in the data directory.
    views: Views ["views."] {
        /// File with views, beside those of the API: TOML with an array of tables `view`, or YAML with a list
        /// of that name if it ends in `.yml` or `.yaml`. Read again by a reload.
        file: Option<PathBuf> = "none";
    }

    /// Queries.
    query: Query ["query."] {
        /// Longest time that a query may take.
        timeout: Duration = "30s";
        /// How far an instant selector looks back.
        lookback: Duration = "5m";
        /// A series without a sample for longer is stale to `latest`, where a request says nothing else.
        stale_after: Duration = "5m";
        /// Samples that one query may hold at most.
        max_samples: usize = "50000000";
        /// Memory that one query's samples and series may take.
        max_memory_bytes: Bytes = "512MiB";
        /// Longest expression.
        max_query_bytes: Bytes = "16KiB";
        /// Threads that evaluate. `auto` stands for one per processor.
        threads: AutoCount = "auto";
        /// How nice threads that evaluate are to all others, 0 to 19, as in `nice`: where processors are short,
        /// samples are taken in first. On Linux.
        nice: u32 = "10";
        /// Remove a metric's name at the end of a query instead of in each operation, so that
        /// `label_replace` still sees it, as Prometheus does behind a feature flag.
        delayed_name_removal: bool = "false";
        /// Queries that run at once. `auto` stands for two per processor.
        max_running: AutoCount = "auto";
        /// Queries that wait for their turn at most; more are answered 503.
        max_waiting: usize = "64";
        /// How long a query waits for its turn before it is answered 503.
        max_wait: Duration = "10s";
        /// How long a query with `Millrace-Read-After` waits for its position before it is answered
        /// 503.
        read_after_timeout: Duration = "5s";
        /// A query that takes so long is logged, and listed by `status/queries/slow`. `none` for no
        /// such record.
        slow_log_threshold: Option<Duration> = "10s";
        /// Origins whose scripts may read answers in a browser: a regular expression for the whole
        /// origin, `.*` for everybody, `none` for nobody.
        cors_origin: Option<String> = "none";
        /// Samples of a remote read that is not streamed at most; its answer is held in memory.
        remote_read_samples: usize = "5000000";
        /// Steps of a range query beyond its first at most.
        max_steps: u32 = "11000";
    }

    /// Recording and alerting rules, in the process that has the parts `ingest` and `query`
    /// ([rules.md](rules.md)).
    rules: Rules ["rules."] {
        /// Prometheus's configuration file, of which `global`, `rule_files` and `alerting` are used. Read again by
        /// `POST /-/reload` and SIGHUP, as all rule files are.
        config_file: Option<PathBuf> = "none";
        /// Rule files beside those: paths, with `*` in the last part for several.
        files: Vec<String> = "";
        /// The tenant whose data groups read and write that name none (`tenant`).
        tenant: String = "anonymous";
        /// Time between two evaluations of a group, where neither it nor `global` says.
        evaluation_interval: Duration = "1m";
        /// The URL under which others reach this server, for links in alerts. `none`: host name and port of
        /// `listen`.
        external_url: Option<String> = "none";
        /// Groups that are evaluated at once. `auto` stands for one per processor.
        threads: AutoCount = "auto";
        /// The state of alerts is looked for after a restart if it is not older than this.
        outage_tolerance: Duration = "1h";
        /// An alert that was pending before a restart waits at least so long after it; those with a shorter `for`
        /// begin to wait again.
        for_grace_period: Duration = "10m";
        /// An alert that goes on firing is sent to the Alertmanagers again after this time.
        resend_delay: Duration = "1m";
        /// Data that come late change what recording rules have recorded so far back: past evaluations are made
        /// again. `none` leaves them as they are.
        correct_window: Option<Duration> = "10m";
        /// Alerts that wait to be sent at most; beyond, the oldest go.
        notification_queue: usize = "10000";
    }

    /// Samples as they are applied, for whoever listens ([live.md](live.md)).
    live: Live ["live."] {
        /// Subscribers at most, and never more than half of `server.max_connections`; one more is answered 503.
        max_subscribers: usize = "1000";
        /// Memory for what was applied last, shared by all subscribers. Who reads so slowly that it is gone is
        /// dropped.
        ring_bytes: Bytes = "64MiB";
        /// A subscriber that nothing happens for is told so this often.
        heartbeat: Duration = "15s";
        /// Who loses the connection is told to come back after this time to twice as long, each after another.
        reconnect: Duration = "2s";
    }

    /// Logs, on standard error.
    log: Log ["log."] {
        /// Level, or levels by part.
        level: LogFilter = "info";
        /// For people or for machines.
        format: LogFormat = "text";
    }
}
