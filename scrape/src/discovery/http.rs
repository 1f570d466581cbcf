//! `http_sd_configs`: groups that a URL answers with.

use std::time::Duration;

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use tokio::time::timeout;
use url::Url;

use super::{Finder, Group, ticks};
use crate::config::{HttpConfig, HttpSd, StaticGroup, check_group};
use crate::http::{Client, Kept};

/// An answer must be there within this time, however rarely it is asked for.
const MOST: Duration = Duration::from_secs(60);

/// A list of targets is held in memory; beyond this it is not one.
const MAX_BYTES: usize = 64 << 20;

pub(super) async fn run(finder: Finder, sd: HttpSd, config: HttpConfig) {
    let url = match Url::parse(&sd.url) {
        Ok(url) => url,
        Err(error) => return finder.failed("http", &sd.url, &error.to_string()),
    };
    let every = sd.refresh_interval.0;
    let mut ticks = ticks(every);
    let mut kept = Kept::default();
    let mut client = None;
    loop {
        ticks.tick().await;
        // Made each time, since the files of its TLS may have changed; if they are wrong now, the one
        // before goes on.
        let (config, fs) = (config.clone(), finder.fs.clone());
        let making = tokio::task::spawn_blocking(move || Client::new(config, fs)).await;
        match making.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(made) => client = Some(made),
            Err(error) => finder.failed("http", &sd.url, &error),
        }
        let Some(client) = &client else {
            continue;
        };
        let asked = timeout(every.min(MOST), ask(client, &mut kept, &url, every)).await;
        let found = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let told = match found {
            Ok(groups) => finder.tell(groups),
            Err(error) => {
                finder.failed("http", &sd.url, &error);
                finder.pool.strong_count() > 0
            }
        };
        if !told {
            return;
        }
    }
}

async fn ask(
    client: &Client,
    kept: &mut Kept,
    url: &Url,
    every: Duration,
) -> Result<Vec<Group>, String> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let seconds = HeaderValue::from_str(&every.as_secs_f64().to_string());
    headers.insert(
        "x-prometheus-refresh-interval-seconds",
        seconds.map_err(|error| error.to_string())?,
    );
    let mut answer = client.get(kept, url, &headers).await?;
    let content_type = answer.header(CONTENT_TYPE).unwrap_or_default().to_owned();
    if !content_type.to_lowercase().starts_with("application/json") {
        return Err(format!("unsupported content type {content_type:?}"));
    }
    let mut body = Vec::new();
    while let Some(bytes) = answer.next().await? {
        if body.len() + bytes.len() > MAX_BYTES {
            return Err(format!("an answer of more than {MAX_BYTES} bytes"));
        }
        body.extend_from_slice(&bytes);
    }
    let groups: Vec<StaticGroup> =
        serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    for group in &groups {
        check_group(group)?;
    }
    let meta = [("__meta_url", url.as_str())];
    Ok(groups
        .iter()
        .map(|group| Group::new(group, &meta))
        .collect())
}
