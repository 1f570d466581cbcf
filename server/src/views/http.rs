//! `/api/v1/views`: the views of the tenant that asks.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use millrace_model::TenantId;
use millrace_query::{Engine, ReadScope};
use millrace_store::{Store, StoreError, ViewListError};
use millrace_views::{Origin, ViewDefinition, ViewSpec};
use serde_json::{Value, json};

use super::file::selector;
use crate::admin::{Refusal, blocking};

/// Longest definition.
const MAX_BODY_BYTES: usize = 64 << 10;

/// What the endpoints need.
#[derive(Clone, Debug)]
pub struct Views {
    /// Who derives them.
    pub store: Arc<Store>,
    /// Reads selectors.
    pub engine: Arc<Engine>,
}

/// The routes.
pub fn router(views: Views) -> Router {
    Router::new()
        .route("/api/v1/views", get(list))
        .route("/api/v1/views/{name}", put(define).delete(drop_view))
        .route("/api/v1/views/{name}/status", get(status))
        .route("/api/v1/views/{name}/rebuild", post(rebuild).put(rebuild))
        .with_state(views)
}

fn success(status: StatusCode, data: &Value) -> Response {
    (status, Json(json!({"status": "success", "data": data}))).into_response()
}

fn refuse(error: &StoreError) -> Refusal {
    let StoreError::ViewList(list) = error else {
        return Refusal::internal(error);
    };
    match list {
        ViewListError::Unknown { .. } => Refusal::not_found(error.to_string()),
        ViewListError::OfFile { .. }
        | ViewListError::OfApi { .. }
        | ViewListError::Twice { .. }
        | ViewListError::TooMany { .. } => Refusal::bad_data(error.to_string()),
    }
}

fn shown(store: &Store, view: &ViewDefinition) -> Value {
    let status = store.view_status(view);
    let series: Vec<String> = view
        .aggregates
        .iter()
        .map(|a| view.series_name(*a))
        .collect();
    json!({
        "definition": ViewSpec::of(view),
        "origin": match view.origin { Origin::Api => "api", Origin::File => "file" },
        "series": series,
        "progress": {
            "buckets": status.buckets,
            "derived": status.derived,
            "frozen": status.frozen,
            "behindSeconds": status.behind_ms as f64 / 1000.0,
            "samples": status.samples,
            "done": status.derived == status.buckets,
            "error": status.failure,
        },
        "files": status.files,
        "bytes": status.bytes,
    })
}

fn known(store: &Store, tenant: &TenantId, name: &str) -> Result<Arc<ViewDefinition>, Refusal> {
    let found = store.views().get(tenant, name);
    found.ok_or_else(|| {
        let name = name.to_owned();
        refuse(&ViewListError::Unknown { name }.into())
    })
}

/// Whoever is bound to labels sees no figures of series without them.
fn unbound(scope: &ReadScope) -> Result<(), Refusal> {
    if scope.labels.is_empty() {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::FORBIDDEN,
        kind: "forbidden",
        text: "a token that is bound to labels neither lists nor changes views".to_owned(),
    })
}

async fn list(
    State(Views { store, .. }): State<Views>,
    scope: ReadScope,
) -> Result<Response, Refusal> {
    unbound(&scope)?;
    let views = blocking(move || {
        let views = store.views().of(&scope.tenant);
        views
            .iter()
            .map(|view| shown(&store, view))
            .collect::<Vec<_>>()
    });
    Ok(success(StatusCode::OK, &json!({"views": views.await?})))
}

async fn status(
    State(Views { store, .. }): State<Views>,
    scope: ReadScope,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    unbound(&scope)?;
    let view = known(&store, &scope.tenant, &name)?;
    let shown = blocking(move || shown(&store, &view)).await?;
    Ok(success(StatusCode::OK, &shown))
}

async fn define(
    State(Views { store, engine }): State<Views>,
    scope: ReadScope,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    unbound(&scope)?;
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await;
    let body = body.map_err(|error| Refusal::bad_data(format!("the body: {error}")))?;
    let mut spec: ViewSpec = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_data(format!("the body is no view: {error}")))?;
    if !spec.name.is_empty() && spec.name != name {
        let text = format!("name: {:?} is not the {name:?} of the path", spec.name);
        return Err(Refusal::bad_data(text));
    }
    spec.name = name;
    let view = spec
        .check(scope.tenant, Origin::Api, |text| selector(&engine, text))
        .map_err(|error| Refusal::bad_data(error.to_string()))?;
    let done = blocking(move || {
        let is_new = store.views().put(view.clone())?;
        Ok((is_new, shown(&store, &view)))
    });
    let (is_new, shown) = done.await?.map_err(|error: StoreError| refuse(&error))?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(success(status, &shown))
}

async fn drop_view(
    State(Views { store, .. }): State<Views>,
    scope: ReadScope,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    unbound(&scope)?;
    let done = blocking(move || store.views().remove(&scope.tenant, &name));
    done.await?.map_err(|error| refuse(&error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn rebuild(
    State(Views { store, .. }): State<Views>,
    scope: ReadScope,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    unbound(&scope)?;
    let view = known(&store, &scope.tenant, &name)?;
    let done = blocking(move || {
        store.rebuild_view(&view)?;
        Ok(shown(&store, &view))
    });
    let shown = done.await?.map_err(|error: StoreError| refuse(&error))?;
    Ok(success(StatusCode::ACCEPTED, &shown))
}
