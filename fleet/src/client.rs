//! Requests to one store.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use millrace_queue::Position;
use parking_lot::RwLock;
use reqwest::{Client, RequestBuilder, Response};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::fleet::FleetError;
use crate::options::FleetOptions;
use crate::wire::frame::{End, ErrorCode, Frame, FrameKind, FrameReader, Hello, StreamError};
use crate::wire::items::{WARNINGS_MAX, decode_texts};
use crate::wire::messages::{
    READ_PATH, ReadRequest, Refusal, RefusalKind, STATUS_PATH, StoreStatus, WAIT_PATH, WaitRequest,
};
use crate::wire::{VERSION, WireError};

/// Longest status or refusal.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Less than the time after which a store closes an idle connection.
const IDLE: Duration = Duration::from_secs(20);

/// Why a store's answer is of no use.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Connection(String),
    #[error("silent for {waited:?} {when}")]
    Silent {
        waited: Duration,
        when: &'static str,
    },
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the answer was cut")]
    Cut,
    #[error("{message}")]
    Refused { kind: RefusalKind, message: String },
    #[error("status {0}")]
    Status(StatusCode),
    #[error("{}", .0.message)]
    Stream(StreamError),
    #[error("reads queue {found}, not {wanted}")]
    OtherQueue { found: String, wanted: String },
    #[error("answers for other partitions, or older data, than it was asked for")]
    OtherAnswer,
    /// A bound of ours; no other store could help.
    #[error("memory")]
    Memory { limit: u64, all: bool },
}

impl CallError {
    /// The word for it in metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Connection(_) => "connection",
            Self::Silent { .. } => "silent",
            Self::Wire(_) => "garbage",
            Self::Cut => "cut",
            Self::Refused { kind, .. } => match kind {
                RefusalKind::BadRequest => "bad_request",
                RefusalKind::ForeignQueue => "foreign_queue",
                RefusalKind::NotHere => "not_here",
                RefusalKind::Behind => "behind",
                RefusalKind::Busy => "busy",
                RefusalKind::NotReady => "not_ready",
            },
            Self::Status(_) => "status",
            Self::Stream(_) => "error",
            Self::OtherQueue { .. } => "foreign_queue",
            Self::OtherAnswer => "other_answer",
            Self::Memory { .. } => "memory",
        }
    }

    /// Whether the store itself is suspect, so that others are asked first until it has answered
    /// a poll.
    pub(crate) fn blames_store(&self) -> bool {
        match self {
            Self::Connection(_)
            | Self::Silent { .. }
            | Self::Wire(_)
            | Self::Cut
            | Self::Status(_)
            | Self::OtherQueue { .. }
            | Self::OtherAnswer => true,
            Self::Refused { kind, .. } => match kind {
                RefusalKind::ForeignQueue | RefusalKind::NotHere | RefusalKind::NotReady => true,
                RefusalKind::BadRequest | RefusalKind::Behind | RefusalKind::Busy => false,
            },
            Self::Stream(error) => match error.code {
                ErrorCode::NotReady | ErrorCode::Internal => true,
                ErrorCode::DataUnavailable | ErrorCode::Limit | ErrorCode::Deadline => false,
            },
            Self::Memory { .. } => false,
        }
    }
}

/// What takes the frames of an answer.
pub(crate) trait Collector {
    /// Takes one frame between hello and end.
    fn accept(&mut self, frame: Frame) -> Result<(), CallError>;

    /// What has come: items and samples. Frames are counted by the caller.
    fn came(&self) -> (u64, u64);
}

/// The token that stores are shown, which may change while it is used; `None` for none.
pub type SharedToken = Arc<RwLock<Option<String>>>;

/// How stores are spoken to.
#[derive(Clone, Debug, Default)]
pub struct StoreAccess {
    /// What they are shown.
    pub token: SharedToken,
    /// TLS with what it says, which may follow files that change; `None` for plain HTTP.
    pub tls: Option<ClientConfig>,
}

/// Asks stores. Keeps connections.
pub(crate) struct Caller {
    http: Client,
    options: FleetOptions,
    token: SharedToken,
    scheme: &'static str,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

impl Caller {
    pub(crate) fn new(options: FleetOptions, access: StoreAccess) -> Result<Self, FleetError> {
        let scheme = match access.tls {
            Some(_) => "https",
            None => "http",
        };
        let tls = match access.tls {
            Some(tls) => tls,
            None => believing_nobody()?,
        };
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            // Stores are neighbours: what the environment says of proxies is not for them.
            .no_proxy()
            .connect_timeout(options.poll_timeout)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self {
            http,
            options,
            token: access.token,
            scheme,
        })
    }

    fn url(&self, store: &str, path: &str) -> String {
        format!("{}://{store}{path}", self.scheme)
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &*self.token.read() {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn status(&self, store: &str) -> Result<StoreStatus, CallError> {
        let asking = async {
            let sent = self
                .with_token(self.http.get(self.url(store, STATUS_PATH)))
                .send()
                .await;
            read_status(sent.map_err(connection)?).await
        };
        self.within(
            self.options.poll_timeout,
            "when its status was asked",
            asking,
        )
        .await
    }

    /// The store's status once it has applied everything up to the position.
    pub(crate) async fn wait(
        &self,
        store: &str,
        position: &Position,
        left: Duration,
    ) -> Result<StoreStatus, CallError> {
        let request = WaitRequest {
            position: position.to_string(),
            timeout_ms: millis(left),
        };
        let asking = async {
            let asked = self.http.post(self.url(store, WAIT_PATH)).json(&request);
            let sent = self.with_token(asked).send();
            read_status(sent.await.map_err(connection)?).await
        };
        let patience = left + self.options.poll_timeout;
        self.within(patience, "when it was waited for", asking)
            .await
    }

    /// Reads an answer to its end, and what it warns of. The first frame is looked at before the collector sees any.
    pub(crate) async fn read<C: Collector>(
        &self,
        store: &str,
        request: &ReadRequest,
        collector: &mut C,
        received: &mut u64,
    ) -> Result<(Hello, Vec<String>), CallError> {
        let sending = async {
            let asked = self.http.post(self.url(store, READ_PATH)).json(request);
            let sent = self.with_token(asked).send();
            sent.await.map_err(connection)
        };
        let patience = self.options.first_byte_timeout;
        let response = self.within(patience, "before its answer", sending).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let mut stream = FrameStream {
            response,
            frames: FrameReader::default(),
            stall: self.options.stall_timeout,
        };
        let first = stream.next().await?.ok_or(CallError::Cut)?;
        *received += first.body.len() as u64;
        if first.kind != FrameKind::Hello {
            return Err(WireError::Invalid {
                what: "first frame",
            }
            .into());
        }
        let hello = Hello::decode(&first.body)?;
        check_hello(&hello, request)?;
        let (mut frames, mut warnings) = (0, Vec::new());
        loop {
            let frame = stream.next().await?.ok_or(CallError::Cut)?;
            *received += frame.body.len() as u64;
            match frame.kind {
                FrameKind::End => {
                    let (items, samples) = collector.came();
                    let came = End {
                        frames,
                        items,
                        samples,
                    };
                    End::decode(&frame.body)?.check(&came)?;
                    if stream.next().await?.is_some() {
                        let what = "frame behind the end";
                        return Err(WireError::Invalid { what }.into());
                    }
                    return Ok((hello, warnings));
                }
                FrameKind::Warnings => {
                    frames += 1;
                    warnings.extend(decode_texts(&frame.body)?);
                    if warnings.len() > WARNINGS_MAX {
                        let what = "number of warnings";
                        return Err(WireError::Invalid { what }.into());
                    }
                }
                FrameKind::Error => {
                    return Err(CallError::Stream(StreamError::decode(&frame.body)?));
                }
                FrameKind::Hello
                | FrameKind::Series
                | FrameKind::Labels
                | FrameKind::Texts
                | FrameKind::Metadata => {
                    frames += 1;
                    collector.accept(frame)?;
                }
            }
        }
    }

    async fn within<T>(
        &self,
        patience: Duration,
        when: &'static str,
        asking: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        timeout(patience, asking)
            .await
            .unwrap_or(Err(CallError::Silent {
                waited: patience,
                when,
            }))
    }
}

/// A store that was restored from an old copy, or is another one than it was, says so here.
fn check_hello(hello: &Hello, request: &ReadRequest) -> Result<(), CallError> {
    if request.queue.parse() != Ok(hello.applied.queue) {
        return Err(CallError::OtherQueue {
            found: hello.applied.queue.to_string(),
            wanted: request.queue.clone(),
        });
    }
    let told = &hello.applied.next;
    let mut asked = request.partitions.clone();
    asked.sort_unstable();
    let same = told.keys().map(|partition| partition.0).eq(asked);
    let fresh = told.iter().all(|(partition, applied)| {
        let least = request.at_least.get(&partition.0).copied();
        applied.0 >= least.unwrap_or(0)
    });
    if same && fresh {
        Ok(())
    } else {
        Err(CallError::OtherAnswer)
    }
}

struct FrameStream {
    response: Response,
    frames: FrameReader,
    stall: Duration,
}

impl FrameStream {
    /// The next frame; `None` at the end of the body.
    async fn next(&mut self) -> Result<Option<Frame>, CallError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(Some(frame));
            }
            let chunk = timeout(self.stall, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| CallError::Silent {
                waited: self.stall,
                when: "within its answer",
            })?;
            // An error here is a connection that ended within the body.
            match chunk.map_err(|_| CallError::Cut)? {
                Some(bytes) => self.frames.push(&bytes),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(CallError::Cut),
            }
        }
    }
}

/// The client wants a configuration also where it never speaks TLS; its own would need the system's
/// certificates.
fn believing_nobody() -> Result<ClientConfig, FleetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| FleetError::Tls(error.to_string()))?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time left until the deadline.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What the library says, with its causes, without the address, which stands before it anyway.
fn connection(error: reqwest::Error) -> CallError {
    use std::error::Error as _;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    CallError::Connection(text)
}

async fn read_status(response: Response) -> Result<StoreStatus, CallError> {
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let bytes = bounded(response).await?;
    let status: StoreStatus = serde_json::from_slice(&bytes)
        .map_err(|error| CallError::Connection(format!("its status is none: {error}")))?;
    if status.protocol != VERSION {
        return Err(CallError::Wire(WireError::Version {
            found: status.protocol,
            supported: VERSION,
        }));
    }
    Ok(status)
}

async fn refusal(response: Response) -> CallError {
    let status = response.status();
    let Ok(bytes) = bounded(response).await else {
        return CallError::Status(status);
    };
    match serde_json::from_slice::<Refusal>(&bytes) {
        Ok(Refusal { kind, message }) => CallError::Refused { kind, message },
        // Something before the store answers, or the store is not there yet.
        Err(_) => CallError::Status(status),
    }
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(connection)? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let what = "length of the answer";
            return Err(WireError::Invalid { what }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
