//! Labels of a series that is not known yet.
//!
//! In this order, later ones standing where names meet: attributes of the point (those that meet
//! in one name after translation are joined with `;`, in the order of their own names), promoted
//! attributes of the resource, `job` and `instance`, the scope, the temporality, and `le` or `quantile`.

use std::borrow::Cow;

use millrace_model::{DELTA, METRIC_NAME, MetricType, TEMPORALITY};

use super::Span;
use super::attributes::{self, Attribute};
use super::names::{self, NameKind};
use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::options::OtlpOptions;
use crate::report::Reason;
use crate::series::{BadSeries, Key, KeyMap, SeriesBuilder, text};

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE: &str = "service.instance.id";

/// Where the attributes of a point stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    span: Span,
    gathered: bool,
    number: u32,
}

impl Raw {
    pub(super) const NONE: Self = Self {
        span: (0, 0),
        gathered: false,
        number: 0,
    };

    /// In one run in the body.
    pub(super) fn body(span: Span, number: u32) -> Self {
        Self {
            span,
            gathered: false,
            number,
        }
    }

    /// Among those that were gathered.
    pub(super) fn gathered(span: Span, number: u32) -> Self {
        Self {
            span,
            gathered: true,
            number,
        }
    }
}

/// Which of the series of a point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// The only one.
    Value,
    Sum,
    Count,
    /// Everything up to this bound.
    Bucket(f64),
    Quantile(f64),
    /// That of the resource.
    TargetInfo,
}

impl Role {
    /// What tells it from the others of its point.
    #[inline]
    pub(super) fn key(self) -> u128 {
        match self {
            Self::Value => 0,
            Self::Sum => 1 << 64,
            Self::Count => 2 << 64,
            Self::Bucket(bound) => 3 << 64 | u128::from(bound.to_bits()),
            Self::Quantile(quantile) => 4 << 64 | u128::from(quantile.to_bits()),
            Self::TargetInfo => 5 << 64,
        }
    }
}

/// A metric, as far as its labels go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MetricRef {
    pub(super) resource: Span,
    pub(super) scope: Span,
    pub(super) schema: Span,
    pub(super) name: Span,
    pub(super) unit: Span,
    /// Hash of name, unit and kind, of which its name as a series is made.
    pub(super) name_key: Key,
    pub(super) kind: NameKind,
    pub(super) metric_type: MetricType,
    /// Its series say that they are of deltas.
    pub(super) is_delta: bool,
}

impl Default for MetricRef {
    fn default() -> Self {
        Self {
            resource: (0, 0),
            scope: (0, 0),
            schema: (0, 0),
            name: (0, 0),
            unit: (0, 0),
            name_key: 0,
            kind: NameKind::Other,
            metric_type: MetricType::Unknown,
            is_delta: false,
        }
    }
}

/// A series that waits to be looked up.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesRef {
    /// Index of its metric.
    pub(super) metric: u32,
    pub(super) attributes: Raw,
    pub(super) role: Role,
}

/// What was worked out for series of this request, since others mostly share it: the labels of the
/// last resource, and the names of metrics.
#[derive(Debug, Default)]
pub(super) struct LabelCache {
    resource: Option<(Span, Result<ResourceLabels, BadSeries>)>,
    names: KeyMap<Result<String, BadSeries>>,
}

/// The labels that a resource gives to every series.
#[derive(Clone, Debug, Default)]
struct ResourceLabels {
    job: Option<String>,
    instance: Option<String>,
    promoted: Vec<(String, String)>,
}

/// Labels by name; setting one twice keeps the later value.
struct Set<'a> {
    labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Whether each name is greater than the one before it, so that a greater one is not there yet.
    ascending: bool,
}

impl<'a> Set<'a> {
    /// Attributes of a point: few have more.
    const USUAL: usize = 16;

    fn with_capacity(capacity: usize) -> Self {
        Self {
            labels: Vec::with_capacity(capacity),
            ascending: true,
        }
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Cow<'a, str>> {
        if self.ascending && self.labels.last().is_none_or(|(last, _)| **last < *name) {
            return None;
        }
        let found = self.labels.iter_mut().find(|(n, _)| n == name);
        found.map(|(_, value)| value)
    }

    /// Adds a label that is not there.
    fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        self.ascending &= self.labels.last().is_none_or(|(last, _)| *last < name);
        self.labels.push((name, value));
    }

    fn set(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let (name, value) = (name.into(), value.into());
        match self.get_mut(&name) {
            Some(old) => *old = value,
            None => self.push(name, value),
        }
    }

    fn set_if_new(&mut self, name: &'a str, value: &'a str) {
        if self.get_mut(name).is_none_or(|old| old.is_empty()) {
            self.set(name, value);
        }
    }

    /// Adds attributes, sorted, under their names as labels.
    fn add_attributes(
        &mut self,
        attributes: Vec<Attribute<'a>>,
        options: &OtlpOptions,
    ) -> Result<(), BadSeries> {
        let mut last = None;
        for (key, value) in attributes {
            if last == Some(key) {
                let message = format!("attribute {key:?} comes twice");
                let bad = BadSeries::new(Reason::DuplicateLabel, message);
                return Err(bad.value(key.as_bytes()));
            }
            last = Some(key);
            let name = label_name(key, options)?;
            match self.get_mut(&name) {
                Some(joined) if !joined.is_empty() => {
                    let joined = joined.to_mut();
                    joined.push(';');
                    joined.push_str(&value);
                }
                Some(empty) => *empty = value,
                None => self.push(name, value),
            }
        }
        Ok(())
    }
}

fn label_name<'a>(name: &'a str, options: &OtlpOptions) -> Result<Cow<'a, str>, BadSeries> {
    names::label_name(name, options.translation)
        .map_err(|message| BadSeries::new(Reason::BadName, message).value(name.as_bytes()))
}

/// Whether a resource has something to tell beside its identity, and has one.
pub(super) fn wants_target_info(body: &[u8], (start, end): Span) -> Result<bool, Malformed> {
    let (mut identified, mut others) = (false, false);
    let mut fields = Fields::new(body, start, end);
    while let Some(field) = fields.next()? {
        let (1, Value::Bytes(start, end)) = field else {
            continue;
        };
        let mut key = &body[..0];
        let mut attribute = Fields::new(body, start, end);
        while let Some(field) = attribute.next()? {
            if let (1, Value::Bytes(start, end)) = field {
                key = &body[start..end];
            }
        }
        let is = |name: &str| key == name.as_bytes();
        if is(SERVICE_NAME) || is(SERVICE_INSTANCE) {
            identified = true;
        } else if !is(SERVICE_NAMESPACE) {
            others = true;
        }
    }
    Ok(identified && others)
}

/// Puts together the labels of one series.
///
/// # Errors
///
/// Why it has none.
pub(super) fn build(
    body: &[u8],
    gathered: &[u8],
    options: &OtlpOptions,
    metric: &MetricRef,
    series: &SeriesRef,
    cache: &mut LabelCache,
    builder: &mut SeriesBuilder<'_>,
) -> Result<(), BadSeries> {
    let LabelCache { resource, names } = cache;
    let resource = match resource {
        Some((span, labels)) if *span == metric.resource => &*labels,
        other => {
            let labels = resource_labels(body, metric.resource, options);
            &other.insert((metric.resource, labels)).1
        }
    };
    let resource = resource.as_ref().map_err(Clone::clone)?;
    if matches!(series.role, Role::TargetInfo) {
        return build_target_info(body, metric.resource, resource, options, builder);
    }
    let name = names.entry(metric.name_key);
    let name = &*name.or_insert_with(|| metric_name(body, metric, options));
    let name = name.as_ref().map_err(Clone::clone)?;
    let (suffix, extra) = match series.role {
        Role::Value | Role::TargetInfo => ("", None),
        Role::Sum => ("_sum", None),
        Role::Count => ("_count", None),
        Role::Bucket(bound) => ("_bucket", Some(("le", bound))),
        Role::Quantile(quantile) => ("", Some(("quantile", quantile))),
    };
    if suffix.is_empty() {
        builder.label(METRIC_NAME, name)?;
    } else {
        builder.label(METRIC_NAME, &format!("{name}{suffix}"))?;
    }
    let Raw {
        span: (start, end),
        gathered: is_gathered,
        number,
    } = series.attributes;
    let run = if is_gathered { gathered } else { body };
    let mut attributes = Vec::with_capacity(Set::USUAL);
    attributes::read(&run[start..end], number, &mut attributes)?;
    attributes.retain(|(key, _)| *key != METRIC_NAME);
    // Stable: of one name twice the first is named.
    attributes.sort_by(|a, b| a.0.cmp(b.0));
    let more = resource.promoted.len() + 4;
    let mut set = Set::with_capacity(attributes.len() + more);
    set.add_attributes(attributes, options)?;
    for (name, value) in &resource.promoted {
        set.set_if_new(name, value);
    }
    identify(&mut set, resource);
    if options.promote_scope_metadata {
        add_scope(&mut set, body, metric, options)?;
    }
    if metric.is_delta {
        set.set(TEMPORALITY, DELTA);
    }
    if let Some((name, value)) = extra {
        set.set(name, bound_text(value));
    }
    for (name, value) in &set.labels {
        builder.label(name, value)?;
    }
    Ok(())
}

fn identify<'a>(set: &mut Set<'a>, resource: &'a ResourceLabels) {
    for (name, value) in [("job", &resource.job), ("instance", &resource.instance)] {
        if let Some(value) = value {
            set.set(name, value.as_str());
        }
    }
}

/// A bound as Prometheus writes it: without exponent, the last one as `+Inf`.
fn bound_text(bound: f64) -> String {
    if bound == f64::INFINITY {
        "+Inf".to_owned()
    } else if bound == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        bound.to_string()
    }
}

fn metric_name(
    body: &[u8],
    metric: &MetricRef,
    options: &OtlpOptions,
) -> Result<String, BadSeries> {
    let name = text(&body[metric.name.0..metric.name.1], "metric name")?;
    let unit = text(&body[metric.unit.0..metric.unit.1], "unit")?;
    if name.is_empty() {
        let message = "the metric has no name";
        return Err(BadSeries::new(Reason::MissingMetricName, message));
    }
    names::metric_name(name, unit, metric.kind, options.translation)
        .map(Cow::into_owned)
        .map_err(|message| BadSeries::new(Reason::BadName, message).value(name.as_bytes()))
}

fn resource_labels(
    body: &[u8],
    (start, end): Span,
    options: &OtlpOptions,
) -> Result<ResourceLabels, BadSeries> {
    let mut attributes = Vec::new();
    attributes::read(&body[start..end], 1, &mut attributes)?;
    attributes.sort_by(|a, b| a.0.cmp(b.0));
    let get = |name: &str| attributes.iter().find(|(key, _)| *key == name);
    let job = get(SERVICE_NAME).map(|(_, name)| match get(SERVICE_NAMESPACE) {
        Some((_, namespace)) => format!("{namespace}/{name}"),
        None => name.to_string(),
    });
    let instance = get(SERVICE_INSTANCE).map(|(_, id)| id.to_string());
    let mut promoted = Set::with_capacity(0);
    let wanted = attributes.iter().filter(|(key, _)| {
        let listed = |list: &[String]| list.iter().any(|name| name == key);
        if options.promote_all_resource_attributes {
            !listed(&options.ignore_resource_attributes)
        } else {
            listed(&options.promote_resource_attributes)
        }
    });
    for (key, value) in wanted {
        let name = label_name(key, options)?;
        // Where two meet, the first stands.
        if promoted.get_mut(&name).is_none() {
            promoted.set(name, &**value);
        }
    }
    let own = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned());
    Ok(ResourceLabels {
        job: job.filter(|job| !job.is_empty()),
        instance: instance.filter(|instance| !instance.is_empty()),
        promoted: promoted.labels.into_iter().map(own).collect(),
    })
}

fn add_scope<'a>(
    set: &mut Set<'a>,
    body: &'a [u8],
    metric: &MetricRef,
    options: &OtlpOptions,
) -> Result<(), BadSeries> {
    let (start, end) = metric.scope;
    let (mut name, mut version) = ("", "");
    let mut fields = Fields::new(body, start, end);
    let broken = |at: Malformed| {
        let message = format!("the scope is not readable: bad {}", at.what);
        BadSeries::new(Reason::InvalidUtf8, message)
    };
    while let Some(field) = fields.next().map_err(broken)? {
        match field {
            (1, Value::Bytes(start, end)) => name = text(&body[start..end], "scope name")?,
            (2, Value::Bytes(start, end)) => version = text(&body[start..end], "scope version")?,
            _ => {}
        }
    }
    if name.is_empty() {
        return Ok(());
    }
    let mut attributes = Vec::new();
    attributes::read(&body[start..end], 3, &mut attributes)?;
    for (key, value) in attributes {
        let key = format!("otel_scope_{key}");
        set.set(label_name(&key, options)?.into_owned(), value);
    }
    let schema = text(&body[metric.schema.0..metric.schema.1], "schema")?;
    set.set("otel_scope_name", name);
    set.set("otel_scope_version", version);
    set.set("otel_scope_schema_url", schema);
    Ok(())
}

/// Attributes that are over a limit are left out: they are beside the data.
fn build_target_info(
    body: &[u8],
    (start, end): Span,
    resource: &ResourceLabels,
    options: &OtlpOptions,
    builder: &mut SeriesBuilder<'_>,
) -> Result<(), BadSeries> {
    let mut attributes = Vec::new();
    attributes::read(&body[start..end], 1, &mut attributes)?;
    attributes.sort_by(|a, b| a.0.cmp(b.0));
    attributes.dedup_by(|a, b| a.0 == b.0);
    let keep = options.keep_identifying_resource_attributes;
    let identifying = [SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE];
    attributes.retain(|(key, _)| {
        (keep || !identifying.contains(key))
            && *key != METRIC_NAME
            && label_name(key, options).is_ok()
    });
    let mut set = Set::with_capacity(attributes.len() + 2);
    set.add_attributes(attributes, options)?;
    identify(&mut set, resource);
    builder.label(METRIC_NAME, "target_info")?;
    let own = |name: &str| matches!(name, "job" | "instance");
    for (name, value) in set.labels.iter().filter(|(name, _)| own(name)) {
        builder.label(name, value)?;
    }
    for (name, value) in set.labels.iter().filter(|(name, _)| !own(name)) {
        drop(builder.label(name, value));
    }
    Ok(())
}
