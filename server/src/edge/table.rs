//! The table of all routes: path, methods, who may, how a refusal looks. What is not in it is not served.

use http::Method;
use millrace_auth::{Scope, Scopes};
use millrace_ingest::PushShape;

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everybody.
    Open,
    /// Whoever has a token.
    Token,
    /// Who may push.
    Write,
    /// Who may query.
    Read,
    /// Who may push or query.
    Tenant,
    /// Who may see the server's own figures and state, or do everything.
    Monitor,
    /// Who may do what concerns the whole server.
    Admin,
    /// Another process of the same installation.
    Fleet,
}

impl Need {
    /// The scope to be named in a refusal.
    #[must_use]
    pub fn scope(self) -> Option<Scope> {
        match self {
            Self::Open | Self::Token | Self::Tenant => None,
            Self::Write => Some(Scope::Write),
            Self::Read => Some(Scope::Read),
            Self::Monitor => Some(Scope::Monitor),
            Self::Admin => Some(Scope::Admin),
            Self::Fleet => Some(Scope::Fleet),
        }
    }

    /// Whether these scopes are enough.
    #[must_use]
    pub fn met_by(self, scopes: &Scopes) -> bool {
        match self {
            Self::Tenant => scopes.contains(&Scope::Write) || scopes.contains(&Scope::Read),
            Self::Monitor => scopes.contains(&Scope::Monitor) || scopes.contains(&Scope::Admin),
            Self::Open | Self::Token | Self::Write | Self::Read | Self::Admin | Self::Fleet => {
                self.scope().is_none_or(|scope| scopes.contains(&scope))
            }
        }
    }
}

/// How a refusal looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As an endpoint of that protocol refuses.
    Push(PushShape),
    /// Prometheus's JSON; browsers may ask before they send (`OPTIONS`).
    Query,
    /// Prometheus's JSON.
    Json,
}

/// Which methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// These. `GET` stands for `HEAD` too.
    These(&'static [&'static str]),
    /// The handler itself says which.
    All,
}

impl Methods {
    /// Whether it is one of them.
    #[must_use]
    pub fn take(self, method: &Method) -> bool {
        match self {
            Self::These(list) => {
                list.contains(&method.as_str()) || (method == Method::HEAD && list.contains(&"GET"))
            }
            Self::All => true,
        }
    }

    /// For the header `Allow`.
    #[must_use]
    pub fn names(self) -> String {
        let names = match self {
            Self::These(list) => list,
            Self::All => return String::new(),
        };
        let mut all = names.to_vec();
        if names.contains(&"GET") {
            all.push("HEAD");
        }
        all.sort_unstable();
        all.join(",")
    }
}

/// One route.
#[derive(Debug)]
pub struct Row {
    /// With `{name}` and `{*rest}` for what varies.
    pub path: &'static str,
    /// Which methods.
    pub methods: Methods,
    /// Who may.
    pub need: Need,
    /// How a refusal looks.
    pub shape: Shape,
    /// What the audit log calls it, if a request that changes something is noted there.
    pub audit: Option<&'static str>,
    /// Whether an answer may go on for as long as the client likes: its token is asked for again and again.
    pub lasts: bool,
}

const GET: Methods = Methods::These(&["GET"]);
const POST: Methods = Methods::These(&["POST"]);
const GET_POST: Methods = Methods::These(&["GET", "POST"]);
const POST_PUT: Methods = Methods::These(&["POST", "PUT"]);
const ALL: Methods = Methods::All;

const JSON: Shape = Shape::Push(PushShape::Json);
const TEXT: Shape = Shape::Push(PushShape::Text);
const OTLP: Shape = Shape::Push(PushShape::Otlp);
const INFLUX_1: Shape = Shape::Push(PushShape::InfluxV1);

const fn row(path: &'static str, methods: Methods, need: Need, shape: Shape) -> Row {
    Row {
        path,
        methods,
        need,
        shape,
        audit: None,
        lasts: false,
    }
}

const fn write(path: &'static str, methods: Methods, shape: Shape) -> Row {
    row(path, methods, Need::Write, shape)
}

const fn read(path: &'static str, methods: Methods) -> Row {
    row(path, methods, Need::Read, Shape::Query)
}

const fn monitor(path: &'static str) -> Row {
    row(path, GET, Need::Monitor, Shape::Query)
}

const fn admin(path: &'static str, methods: Methods) -> Row {
    row(path, methods, Need::Admin, Shape::Json)
}

/// An admin route that changes something.
const fn act(path: &'static str, methods: Methods, name: &'static str) -> Row {
    Row {
        path,
        methods,
        need: Need::Admin,
        shape: Shape::Json,
        audit: Some(name),
        lasts: false,
    }
}

/// A route for those who listen.
const fn listen(path: &'static str) -> Row {
    Row {
        path,
        methods: GET,
        need: Need::Read,
        shape: Shape::Json,
        audit: None,
        lasts: true,
    }
}

/// All routes.
pub static TABLE: &[Row] = &[
    // The process.
    row("/", GET, Need::Open, Shape::Json),
    row("/-/healthy", GET, Need::Open, Shape::Json),
    row("/-/ready", GET, Need::Open, Shape::Json),
    row("/version", GET, Need::Token, Shape::Json),
    row("/metrics", GET, Need::Monitor, Shape::Json),
    row("/api/v1/status/pipeline", GET, Need::Monitor, Shape::Json),
    row("/api/v1/status/durability", GET, Need::Monitor, Shape::Json),
    act("/-/reload", POST_PUT, "reload"),
    act("/-/quit", POST_PUT, "quit"),
    // Pushes.
    write("/api/v1/push", POST, JSON),
    write("/api/v1/write", POST, TEXT),
    write("/write", POST, INFLUX_1),
    write("/api/v2/write", POST, Shape::Push(PushShape::InfluxV2)),
    write("/api/v3/write_lp", POST, Shape::Push(PushShape::InfluxV3)),
    write("/v1/metrics", POST, OTLP),
    write("/api/v1/otlp/v1/metrics", POST, OTLP),
    write("/otlp/v1/metrics", POST, OTLP),
    write("/opentelemetry/v1/metrics", POST, OTLP),
    write("/api/v1/import/prometheus", POST, JSON),
    write("/api/v1/import/csv", POST, JSON),
    write("/api/v1/import", POST, JSON),
    write("/metrics/job/{*group}", ALL, TEXT),
    write("/metrics/job@base64/{*group}", ALL, TEXT),
    write("/api/v1/import/prometheus/metrics/job/{*group}", ALL, TEXT),
    write(
        "/api/v1/import/prometheus/metrics/job@base64/{*group}",
        ALL,
        TEXT,
    ),
    // What clients of InfluxDB ask before they write; none of it tells of data.
    row("/ping", GET, Need::Open, INFLUX_1),
    row("/health", GET, Need::Open, INFLUX_1),
    write("/query", GET_POST, INFLUX_1),
    // Queries.
    read("/api/v1/query", GET_POST),
    read("/api/v1/query_range", GET_POST),
    read("/api/v1/query_exemplars", GET_POST),
    read("/api/v1/format_query", GET_POST),
    read("/api/v1/parse_query", GET_POST),
    read("/api/v1/series", GET_POST),
    read("/api/v1/labels", GET_POST),
    read("/api/v1/label/{name}/values", GET),
    read("/api/v1/metadata", GET),
    read("/api/v1/latest", GET_POST),
    listen("/api/v1/live"),
    read("/federate", GET),
    read("/api/v1/read", POST),
    read("/api/v1/export", GET_POST),
    read("/api/v1/views", GET),
    read("/api/v1/views/{name}/status", GET),
    read("/api/v1/rules", GET),
    read("/api/v1/alerts", GET),
    read("/api/v1/alertmanagers", GET),
    read("/api/v1/status/buildinfo", GET),
    read("/api/v1/status/tsdb", GET),
    read("/api/v1/status/queries", GET),
    read("/api/v1/status/queries/slow", GET),
    read("/api/v1/status/queries/{id}", Methods::These(&["DELETE"])),
    read(
        "/api/v1/status/queries/{id}/cancel",
        Methods::These(&["DELETE", "POST"]),
    ),
    read("/api/v1/notifications", GET),
    read("/api/v1/notifications/live", GET),
    // What concerns who pushes as well as who queries.
    row("/api/v1/status/limits", GET, Need::Tenant, Shape::Json),
    // The server, whatever tenant.
    monitor("/api/v1/targets"),
    monitor("/api/v1/targets/metadata"),
    monitor("/api/v1/targets/relabel_steps"),
    monitor("/api/v1/scrape_pools"),
    monitor("/api/v1/scrape_pools/config"),
    monitor("/api/v1/status/runtimeinfo"),
    monitor("/api/v1/status/flags"),
    monitor("/api/v1/status/config"),
    monitor("/api/v1/status/walreplay"),
    monitor("/api/v1/status/self_metrics"),
    monitor("/api/v1/status/tsdb/blocks"),
    monitor("/api/v1/status/fleet"),
    // What changes or shows the whole server.
    act("/api/v1/admin/tsdb/delete_series", ALL, "delete_series"),
    act("/api/v1/admin/tsdb/undelete", ALL, "undelete"),
    act(
        "/api/v1/admin/tsdb/clean_tombstones",
        ALL,
        "clean_tombstones",
    ),
    act("/api/v1/admin/tsdb/snapshot", ALL, "snapshot"),
    act(
        "/api/v1/admin/retention/confirm_clock",
        ALL,
        "confirm_clock",
    ),
    act(
        "/api/v1/views/{name}",
        Methods::These(&["DELETE", "PUT"]),
        "view",
    ),
    act("/api/v1/views/{name}/rebuild", POST_PUT, "view_rebuild"),
    act("/api/v1/admin/retention/run", ALL, "retention"),
    admin("/api/v1/admin/tsdb/deletes", GET),
    admin("/api/v1/admin/retention", GET),
    admin("/api/v1/admin/limits", GET),
    admin("/api/v1/dlq", GET),
    admin("/api/v1/dlq/letter", GET),
    act("/api/v1/dlq/requeue", ALL, "dlq_requeue"),
    act("/api/v1/dlq/purge", ALL, "dlq_purge"),
    act("/api/v1/queue/replay", ALL, "replay"),
    admin("/api/v1/queue", GET),
    admin("/api/v1/queue/records", GET),
    admin("/api/v1/queue/offset", GET),
    // Between processes.
    row("/internal/v1/read", POST, Need::Fleet, Shape::Json),
    row("/internal/v1/status", GET, Need::Fleet, Shape::Json),
    row("/internal/v1/wait", POST, Need::Fleet, Shape::Json),
];

/// The table as a page.
#[must_use]
pub fn page() -> String {
    let mut text = String::from(
        "# Routes\n\n\
         Every path that a millrace serves, and what it asks of a token where `auth.enabled` is on\n\
         ([security.md](security.md)). Made by `millrace config --routes` from the table that the router is made of:\n\
         what is not in it is not served. Which of them a process answers depends on its roles, and those that need\n\
         `admin` on `server.admin_listen` too.\n\n\
         | path | methods | needs | noted in the audit log as |\n|---|---|---|---|\n",
    );
    for row in TABLE {
        let methods = match row.methods {
            Methods::These(_) => row.methods.names().replace(',', ", "),
            Methods::All => "POST, PUT; others are told so".to_owned(),
        };
        let need = match row.need {
            Need::Open => "nothing",
            Need::Token => "any token",
            Need::Write => "`write`",
            Need::Read => "`read`",
            Need::Tenant => "`write` or `read`",
            Need::Monitor => "`monitor` or `admin`",
            Need::Admin => "`admin`",
            Need::Fleet => "`fleet`",
        };
        let audit = row.audit.map_or(String::new(), |name| format!("`{name}`"));
        text.push_str(&format!(
            "| `{}` | {methods} | {need} | {audit} |\n",
            row.path
        ));
    }
    text
}
