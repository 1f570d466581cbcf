//! The way of a request through the [`table`](super::table).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use http::{Method, StatusCode, Uri, header};
use millrace_auth::{
    Act, AuditLog, Identity, Presented, TokenBook, TokenId, Who, presented, without_secrets,
};
use millrace_ingest::{PushContext, PushShape};
use millrace_live::StillAllowed;
use millrace_model::{TenantId, TimestampMs};
use millrace_query::ReadScope;
use parking_lot::Mutex;
use serde_json::json;
use tower::ServiceExt as _;
use tracing::{debug, error, info};

use super::metrics::EdgeMetrics;
use super::refusal::{Refused, TENANT, prometheus, wrong_method};
use super::table::{Need, Row, Shape, TABLE};
use crate::app::App;
use crate::http::{Listener, Origin};
use crate::routes;

/// Longest form of an administrative act; what belongs there is selectors and names.
const MAX_FORM_BYTES: usize = 1 << 20;

/// What of the parameters is noted of an act that was not done.
const MAX_REFUSED_DETAIL: usize = 1 << 10;

/// How many acts a minute are noted of those that a token may not do.
const REFUSED_ACTS: u32 = 10;

/// Where administrative routes are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminPlace {
    /// With everything else.
    Main,
    /// At an address of their own, and only there.
    Own,
    /// Nowhere: everybody could reach them, and no address was named for them.
    Nowhere,
}

/// Who may pass, and where.
#[derive(Debug)]
pub struct Gate {
    /// The tokens; `None` if none is asked for.
    pub book: Option<Arc<TokenBook>>,
    /// Whether `X-Scope-OrgID` is believed.
    pub trust_tenant_header: bool,
    /// Where administrative routes are served.
    pub admin: AdminPlace,
    /// Where administrative acts are noted.
    pub audit: Option<Arc<AuditLog>>,
    /// Figures.
    pub metrics: EdgeMetrics,
}

/// Who asks: the holder of a token, or nobody in particular.
#[derive(Clone, Debug, Default)]
pub struct Caller(pub Option<Arc<Identity>>);

/// Whether whoever asks an open route may learn more than one word: who shows a good token, and everybody where
/// none is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Known(pub bool);

/// The route that the table found for a request.
#[derive(Clone, Copy, Debug)]
struct Expected(&'static str);

struct Front {
    gate: Gate,
    app: Arc<App>,
    paths: matchit::Router<&'static Row>,
    inner: Router,
    refused: Mutex<RefusedActs>,
}

/// How many acts of each token were refused in this minute.
#[derive(Debug, Default)]
struct RefusedActs {
    minute: i64,
    of: HashMap<TokenId, u32>,
}

impl RefusedActs {
    /// Whether one more is to be noted.
    fn room(&mut self, token: &TokenId, now: TimestampMs) -> bool {
        let minute = now.0.div_euclid(60_000);
        if minute != self.minute {
            *self = Self {
                minute,
                of: HashMap::new(),
            };
        }
        let count = self.of.entry(token.clone()).or_default();
        *count += 1;
        *count <= REFUSED_ACTS
    }
}

/// A router that lets requests through to `inner` as the table says.
///
/// # Panics
///
/// If two rows of the table name the same path.
pub fn in_front(app: &Arc<App>, gate: Gate, inner: Router) -> Router {
    let mut paths = matchit::Router::new();
    for row in TABLE {
        let inserted = paths.insert(row.path, row);
        inserted.expect("the table has each path once");
    }
    let front = Front {
        gate,
        app: app.clone(),
        paths,
        inner,
        refused: Mutex::default(),
    };
    Router::new().fallback(pass).with_state(Arc::new(front))
}

/// Refuses to run a handler whose route is not the one for which the request was let through.
pub async fn same_route(request: Request, next: Next) -> Response {
    let found = request.extensions().get::<MatchedPath>();
    let expected = request.extensions().get::<Expected>();
    let same = match (found, expected) {
        (Some(found), Some(Expected(path))) => found.as_str() == *path,
        // Nothing was matched: the answer is that there is no such path.
        (None, _) => true,
        (Some(_), None) => false,
    };
    if same {
        return next.run(request).await;
    }
    prometheus(
        StatusCode::NOT_FOUND,
        "not_found",
        &format!("no such path: {}", request.uri().path()),
    )
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    let Ok(row) = front
        .paths
        .at(request.uri().path())
        .map(|found| *found.value)
    else {
        return routes::unknown_path(front.app.roles(), request.uri());
    };
    let origin = request.extensions().get::<Origin>().copied();
    let origin = origin.unwrap_or_default();
    if let Some(elsewhere) = front
        .gate
        .elsewhere(row.need, origin.listener, request.uri())
    {
        return elsewhere;
    }
    // A browser asks without credentials whether it may ask; that tells nothing and does nothing.
    let asks = row.shape == Shape::Query && request.method() == Method::OPTIONS;
    if asks {
        return front.forward(row, request).await;
    }
    let now = front.app.clock.now();
    match front.gate.admit(row, &request, now) {
        Ok(admitted) => {
            if !row.methods.take(request.method()) {
                let path = request.uri().path();
                return wrong_method(row.shape, row.methods, request.method(), path);
            }
            front.answer(row, request, admitted, origin).await
        }
        Err(refused) => {
            let metric = &front.gate.metrics.refused;
            metric.with_label_values(&[refused.reason]).inc();
            let path = request.uri().path();
            debug!(path, reason = refused.reason, "a request was not allowed");
            let answer = refused.answer(row.shape, request.headers());
            if let (Some(act), Some(caller)) = (audited(row, request.method()), &refused.caller)
                && front.refused.lock().room(&caller.token, now)
            {
                let who = Caller(Some(caller.clone()));
                let detail = without_secrets(request.uri().query().unwrap_or_default());
                front.note(act, &who, detail, origin, answer.status()).await;
            }
            answer
        }
    }
}

/// What is noted of a request, if anything is.
fn audited(row: &Row, method: &Method) -> Option<&'static str> {
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    row.audit.filter(|_| changes)
}

/// A request that may pass.
struct Admitted {
    caller: Caller,
    tenant: TenantId,
}

impl Gate {
    /// The answer of a listener that does not serve such routes.
    fn elsewhere(&self, need: Need, listener: Listener, uri: &Uri) -> Option<Response> {
        let operators = match need {
            Need::Admin => true,
            Need::Monitor
            | Need::Open
            | Need::Token
            | Need::Write
            | Need::Read
            | Need::Tenant
            | Need::Fleet => false,
        };
        let data = match need {
            Need::Write | Need::Read | Need::Tenant | Need::Fleet => true,
            Need::Admin | Need::Monitor | Need::Open | Need::Token => false,
        };
        let why = match (listener, self.admin) {
            (Listener::Main, AdminPlace::Own) if operators => {
                "is served at the address of server.admin_listen"
            }
            (Listener::Main, AdminPlace::Nowhere) if operators => {
                "is not served at an address that others can reach; server.admin_listen names one for it"
            }
            (Listener::Admin, _) if data => {
                "is not served at this address, only at that of `listen`"
            }
            (Listener::Main | Listener::Admin, _) => return None,
        };
        let text = format!("{} {why}", uri.path());
        Some(prometheus(StatusCode::NOT_FOUND, "not_found", &text))
    }

    fn admit(
        &self,
        row: &Row,
        request: &Request,
        now: TimestampMs,
    ) -> Result<Admitted, NotAdmitted> {
        let mut headers = request.headers().get_all(&TENANT).iter();
        let named = headers.next();
        let named = named.map(|value| value.to_str().unwrap_or("\u{fffd}"));
        let caller = self.caller(row, request, now)?;
        // Who knows which one a proxy in front has set.
        if self.trust_tenant_header && headers.next().is_some() {
            let text = "X-Scope-OrgID comes twice".to_owned();
            return Err(Refused::tenant(StatusCode::BAD_REQUEST, text).into());
        }
        let tenant = match (&caller, row.need) {
            (_, Need::Open | Need::Token | Need::Monitor | Need::Fleet) => TenantId::anonymous(),
            (None, Need::Write | Need::Read | Need::Tenant | Need::Admin) => match named {
                Some(named) if self.trust_tenant_header => {
                    named.parse::<TenantId>().map_err(|error| {
                        let text = format!("X-Scope-OrgID: {error}");
                        Refused::tenant(StatusCode::BAD_REQUEST, text)
                    })?
                }
                Some(_) | None => TenantId::anonymous(),
            },
            (Some(identity), Need::Write | Need::Read | Need::Tenant | Need::Admin) => identity
                .tenant(named, self.trust_tenant_header)
                .map_err(|text| NotAdmitted {
                    refused: Refused::tenant(StatusCode::FORBIDDEN, text),
                    caller: Some(identity.clone()),
                })?,
        };
        let caller = Caller(caller);
        Ok(Admitted { caller, tenant })
    }

    fn caller(
        &self,
        row: &Row,
        request: &Request,
        now: TimestampMs,
    ) -> Result<Option<Arc<Identity>>, NotAdmitted> {
        let Some(book) = self.book.as_ref().filter(|_| row.need != Need::Open) else {
            return Ok(None);
        };
        let in_query = row.shape == Shape::Push(PushShape::InfluxV1);
        let shown = presented(request.headers(), request.uri().query(), in_query);
        let secret = match shown {
            Presented::Token(secret) => secret,
            Presented::Nothing => return Err(Refused::unauthorized("missing").into()),
            Presented::Garbage => return Err(Refused::unauthorized("malformed").into()),
        };
        let identity = book
            .check(&secret, now)
            .map_err(|denied| Refused::unauthorized(denied.as_str()))?;
        if !row.need.met_by(&identity.scopes) {
            return Err(NotAdmitted {
                refused: Refused::forbidden(row.need),
                caller: Some(identity),
            });
        }
        Ok(Some(identity))
    }

    fn known(&self, request: &Request, now: TimestampMs) -> Known {
        let Some(book) = &self.book else {
            return Known(true);
        };
        match presented(request.headers(), None, false) {
            Presented::Token(secret) => Known(book.check(&secret, now).is_ok()),
            Presented::Nothing | Presented::Garbage => Known(false),
        }
    }

    /// Says later whether the token of a request still opens that route; `None` if none is asked for.
    fn still_allowed(
        &self,
        row: &'static Row,
        request: &Request,
        app: &App,
    ) -> Option<StillAllowed> {
        let book = self.book.clone()?;
        let shown = presented(request.headers(), request.uri().query(), false);
        let Presented::Token(secret) = shown else {
            return None;
        };
        let clock = app.clock.clone();
        Some(StillAllowed(Arc::new(move || {
            let identity = book.check(&secret, clock.now());
            identity.is_ok_and(|identity| row.need.met_by(&identity.scopes))
        })))
    }
}

/// A refusal, and who was refused, if that is known.
struct NotAdmitted {
    refused: Refused,
    caller: Option<Arc<Identity>>,
}

impl From<Refused> for NotAdmitted {
    fn from(refused: Refused) -> Self {
        Self {
            refused,
            caller: None,
        }
    }
}

impl std::ops::Deref for NotAdmitted {
    type Target = Refused;

    fn deref(&self) -> &Refused {
        &self.refused
    }
}

impl Front {
    async fn answer(
        self: &Arc<Self>,
        row: &'static Row,
        mut request: Request,
        admitted: Admitted,
        origin: Origin,
    ) -> Response {
        let Admitted { caller, tenant } = admitted;
        let labels = caller.0.as_ref().map(|who| who.labels.clone());
        let labels = labels.unwrap_or_default();
        if row.need == Need::Open {
            let known = self.gate.known(&request, self.app.clock.now());
            request.extensions_mut().insert(known);
        }
        let extensions = request.extensions_mut();
        match row.need {
            Need::Write | Need::Read | Need::Tenant | Need::Admin => {
                extensions.insert(PushContext {
                    tenant: tenant.clone(),
                    forced_labels: labels.clone(),
                });
                extensions.insert(ReadScope {
                    tenant,
                    labels: labels.into(),
                });
            }
            Need::Open | Need::Token | Need::Monitor | Need::Fleet => {}
        }
        if row.lasts
            && let Some(allowed) = self.gate.still_allowed(row, &request, &self.app)
        {
            request.extensions_mut().insert(allowed);
        }
        let Some(act) = audited(row, request.method()) else {
            return self.forward(row, request).await;
        };
        let front = self.clone();
        // IMPORTANT: a task of its own. The caller's future is dropped when the client leaves, and what is done
        // is noted.
        let acting =
            tokio::spawn(async move { front.act(act, row, request, &caller, origin).await });
        acting
            .await
            .unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }

    /// Does an administrative act and notes it, whatever comes of it.
    async fn act(
        &self,
        act: &'static str,
        row: &'static Row,
        request: Request,
        caller: &Caller,
        origin: Origin,
    ) -> Response {
        let (detail, done) = match with_detail(request).await {
            Ok((request, detail)) => {
                let done = AssertUnwindSafe(self.forward(row, request));
                (detail, done.catch_unwind().await)
            }
            Err((answer, detail)) => (detail, Ok(answer)),
        };
        let status = match &done {
            Ok(answer) => answer.status(),
            Err(_panic) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        self.note(act, caller, detail, origin, status).await;
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    async fn forward(&self, row: &'static Row, mut request: Request) -> Response {
        request.extensions_mut().insert(Expected(row.path));
        match self.inner.clone().oneshot(request).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        }
    }

    /// Notes an administrative act before its answer goes out.
    async fn note(
        &self,
        act: &'static str,
        caller: &Caller,
        mut detail: String,
        origin: Origin,
        status: StatusCode,
    ) {
        if !status.is_success() {
            detail.truncate(detail.floor_char_boundary(MAX_REFUSED_DETAIL));
        }
        let who = match &caller.0 {
            Some(identity) => Who::Token {
                id: identity.token.to_string(),
                name: identity.name.clone(),
            },
            None => Who::Anonymous,
        };
        let from = origin
            .peer
            .map_or_else(String::new, |peer: SocketAddr| peer.to_string());
        let outcome = if status.is_success() {
            "done".to_owned()
        } else if status.is_server_error() {
            format!("failed: {}", status.as_u16())
        } else {
            format!("refused: {}", status.as_u16())
        };
        info!(act, ?who, from, outcome, "administrative act");
        let Some(audit) = self.gate.audit.clone() else {
            return;
        };
        let act = Act {
            who,
            what: act.to_owned(),
            detail: json!({ "parameters": detail, "status": status.as_u16() }),
            from,
            outcome,
        };
        let noted = tokio::task::spawn_blocking(move || audit.note(&act)).await;
        let failed = match noted {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.gate.metrics.audit_errors.inc();
        error!(
            error = failed,
            "an administrative act is not in the audit log"
        );
    }
}

/// The parameters of an act as they were sent, without secrets, and the request with its body whole; the answer
/// instead if that cannot be read.
async fn with_detail(request: Request) -> Result<(Request, String), (Response, String)> {
    let query = without_secrets(request.uri().query().unwrap_or_default());
    let form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| {
            value
                .as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        });
    if !form {
        return Ok((request, query));
    }
    let (parts, body) = request.into_parts();
    let bytes = match to_bytes(body, MAX_FORM_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let text = format!(
                "the form cannot be read, or has more than {MAX_FORM_BYTES} bytes: {error}"
            );
            let answer = prometheus(StatusCode::BAD_REQUEST, "bad_data", &text);
            return Err((answer, query));
        }
    };
    let both = [query, without_secrets(&String::from_utf8_lossy(&bytes))];
    let told: Vec<String> = both.into_iter().filter(|text| !text.is_empty()).collect();
    let request = Request::from_parts(parts, Body::from(bytes));
    Ok((request, told.join("&")))
}

#[cfg(test)]
mod tests;
