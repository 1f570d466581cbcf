//! The decoder against a naive one: the messages taken apart by prost, every name and label worked out
//! anew for each sample, nothing cached and nothing shared.

use std::collections::BTreeMap;

use millrace_model::Labels;
use proptest::prelude::*;
use prost::Message;

use super::names::{self, NameKind};
use crate::IngestOptions;
use crate::options::{DeltaTemporality, OtlpOptions, TranslationStrategy};
use crate::probe::ProbeFormat;
use crate::testing::{NOW, Stored, decode, probe};

const STALE: u64 = 0x7ff0_0000_0000_0002;

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string: Option<String>,
    #[prost(int64, optional, tag = "3")]
    int: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Gauge>,
    #[prost(message, optional, tag = "7")]
    sum: Option<Sum>,
    #[prost(message, optional, tag = "9")]
    histogram: Option<Histogram>,
    #[prost(message, optional, tag = "11")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    points: Vec<NumberPoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sum {
    #[prost(message, repeated, tag = "1")]
    points: Vec<NumberPoint>,
    #[prost(uint64, tag = "2")]
    temporality: u64,
    #[prost(bool, tag = "3")]
    monotonic: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NumberPoint {
    #[prost(fixed64, tag = "2")]
    start: u64,
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(double, optional, tag = "4")]
    double: Option<f64>,
    #[prost(sfixed64, optional, tag = "6")]
    int: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "8")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Histogram {
    #[prost(message, repeated, tag = "1")]
    points: Vec<HistogramPoint>,
    #[prost(uint64, tag = "2")]
    temporality: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HistogramPoint {
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "10")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    points: Vec<SummaryPoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SummaryPoint {
    #[prost(fixed64, tag = "3")]
    time: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, tag = "5")]
    sum: f64,
    #[prost(message, repeated, tag = "6")]
    quantiles: Vec<Quantile>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "8")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Quantile {
    #[prost(double, tag = "1")]
    quantile: f64,
    #[prost(double, tag = "2")]
    value: f64,
}

/// What a request comes to, the slow way.
#[derive(Default)]
struct Naive {
    stored: Stored,
    /// Data points that are refused.
    refused: u64,
}

/// Labels by name, or nothing if the point is refused.
type Pairs = Option<BTreeMap<String, String>>;

impl Naive {
    fn of(request: &Request, options: &OtlpOptions) -> Self {
        let mut naive = Self::default();
        for one in &request.resources {
            let resource = one.resource.as_ref().map_or(&[][..], |r| &r.attributes);
            let mut times = Vec::new();
            for scope in &one.scopes {
                for metric in &scope.metrics {
                    naive.metric(metric, resource, scope.scope.as_ref(), options, &mut times);
                }
            }
            naive.target_info(resource, &times, options);
        }
        naive
    }

    fn metric(
        &mut self,
        metric: &Metric,
        resource: &[KeyValue],
        scope: Option<&Scope>,
        options: &OtlpOptions,
        times: &mut Vec<i64>,
    ) {
        let (sum, histogram) = (metric.sum.as_ref(), metric.histogram.as_ref());
        let temporality = sum.map(|s| s.temporality);
        let temporality = temporality
            .or(histogram.map(|h| h.temporality))
            .unwrap_or(2);
        let refused = match temporality {
            2 => false,
            1 => options.delta == DeltaTemporality::Refuse,
            _ => true,
        };
        let kind = match sum {
            _ if metric.gauge.is_some() => NameKind::Gauge,
            Some(sum) if sum.monotonic => NameKind::Counter,
            _ => NameKind::Other,
        };
        let name = names::metric_name(&metric.name, &metric.unit, kind, options.translation);
        let name = name.ok().filter(|_| !metric.name.is_empty());
        let delta = temporality == 1 && options.delta == DeltaTemporality::Accumulate;
        let labels = |suffix: &str, point: &[KeyValue], extra: Option<(&str, f64)>| -> Pairs {
            let mut labels = labels(point, resource, scope, options)?;
            labels.insert("__name__".to_owned(), format!("{}{suffix}", name.as_ref()?));
            if delta {
                labels.insert("__temporality__".to_owned(), "delta".to_owned());
            }
            if let Some((name, value)) = extra {
                let text = match value {
                    f64::INFINITY => "+Inf".to_owned(),
                    value => value.to_string(),
                };
                labels.insert(name.to_owned(), text);
            }
            Some(labels)
        };
        let gauges = metric.gauge.iter().flat_map(|gauge| &gauge.points);
        for point in gauges.chain(sum.iter().flat_map(|sum| &sum.points)) {
            let value = point.int.map(|int| int as f64).or(point.double);
            let value = value.or((point.flags & 1 == 1).then_some(0.0));
            let samples = match (refused, value) {
                (true, _) | (_, None) => None,
                (false, Some(value)) => {
                    labels("", &point.attributes, None).map(|l| vec![(l, value)])
                }
            };
            let counts = !refused && value.is_some();
            self.point(
                point.time,
                point.flags,
                samples,
                counts.then_some(&mut *times),
            );
        }
        for point in histogram.iter().flat_map(|h| &h.points) {
            let mut samples = Vec::new();
            let mut add = |suffix: &str, extra, value| {
                samples.push((labels(suffix, &point.attributes, extra)?, value));
                Some(())
            };
            let mut made = point.sum.map_or(Some(()), |sum| add("_sum", None, sum));
            made = made.and_then(|()| add("_count", None, point.count as f64));
            for (i, bound) in point.bounds.iter().enumerate() {
                let below: u64 = point.counts[..=i].iter().sum();
                made = made.and_then(|()| add("_bucket", Some(("le", *bound)), below as f64));
            }
            let last = Some(("le", f64::INFINITY));
            made = made.and_then(|()| add("_bucket", last, point.count as f64));
            let samples = made.filter(|()| !refused).map(|()| samples);
            let counts = !refused;
            self.point(
                point.time,
                point.flags,
                samples,
                counts.then_some(&mut *times),
            );
        }
        for point in metric.summary.iter().flat_map(|s| &s.points) {
            let mut values = vec![
                ("_sum", None, point.sum),
                ("_count", None, point.count as f64),
            ];
            let quantile = |q: &Quantile| ("", Some(("quantile", q.quantile)), q.value);
            values.extend(point.quantiles.iter().map(quantile));
            let labels = |(suffix, extra, value)| {
                labels(suffix, &point.attributes, extra).map(|labels| (labels, value))
            };
            let samples = values.into_iter().map(labels).collect();
            self.point(point.time, point.flags, samples, Some(&mut *times));
        }
    }

    fn point(
        &mut self,
        time: u64,
        flags: u32,
        samples: Option<Vec<(BTreeMap<String, String>, f64)>>,
        times: Option<&mut Vec<i64>>,
    ) {
        let ms = (time / 1_000_000) as i64;
        // The window of the default limits is wider than what is generated; 0 is no time.
        if let (true, Some(times)) = (time != 0, times) {
            times.push(ms);
        }
        let Some(samples) = samples.filter(|_| time != 0) else {
            self.refused += 1;
            return;
        };
        for (labels, value) in samples {
            let bits = if flags & 1 == 1 {
                STALE
            } else {
                value.to_bits()
            };
            self.add(&labels, ms, bits);
        }
    }

    fn add(&mut self, labels: &BTreeMap<String, String>, ms: i64, bits: u64) {
        let pairs = labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let name = Labels::from_pairs(pairs).unwrap().to_string();
        self.stored.entry(name).or_default().push((ms, bits));
    }

    fn target_info(&mut self, resource: &[KeyValue], times: &[i64], options: &OtlpOptions) {
        let known = ["service.name", "service.namespace", "service.instance.id"];
        let identified = resource
            .iter()
            .any(|a| a.key == known[0] || a.key == known[2]);
        let others = resource.iter().any(|a| !known.contains(&a.key.as_str()));
        let (Some(&first), Some(&last)) = (times.iter().min(), times.iter().max()) else {
            return;
        };
        if !identified || !others {
            return;
        }
        let rest: Vec<_> = resource
            .iter()
            .filter(|a| !known.contains(&a.key.as_str()))
            .cloned()
            .collect();
        let mut labels = joined(&rest, options).expect("the names of resources are good");
        labels.extend(identity(resource));
        labels.insert("__name__".to_owned(), "target_info".to_owned());
        let mut at = first;
        while at < last {
            self.add(&labels, at, 1f64.to_bits());
            at += 150_000;
        }
        self.add(&labels, last, 1f64.to_bits());
    }
}

fn text(value: Option<&AnyValue>) -> String {
    let value = value.cloned().unwrap_or_default();
    let int = value.int.map(|int| int.to_string());
    value.string.or(int).unwrap_or_default()
}

/// Attributes as labels; those that meet in one name joined in the order of their own names.
fn joined(attributes: &[KeyValue], options: &OtlpOptions) -> Pairs {
    let mut sorted: Vec<_> = attributes.iter().filter(|a| a.key != "__name__").collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    if sorted.windows(2).any(|pair| pair[0].key == pair[1].key) {
        return None;
    }
    let mut labels = BTreeMap::<String, String>::new();
    for attribute in sorted {
        let name = names::label_name(&attribute.key, options.translation).ok()?;
        let value = text(attribute.value.as_ref());
        let label = labels.entry(name.into_owned()).or_default();
        match label.is_empty() {
            true => *label = value,
            false => *label = format!("{label};{value}"),
        }
    }
    Some(labels)
}

fn identity(resource: &[KeyValue]) -> BTreeMap<String, String> {
    let get = |name: &str| {
        resource
            .iter()
            .find(|a| a.key == name)
            .map(|a| text(a.value.as_ref()))
    };
    let job = get("service.name").map(|name| match get("service.namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    });
    let pairs = [("job", job), ("instance", get("service.instance.id"))];
    let pair = |(name, value): (&str, Option<String>)| Some((name.to_owned(), value?));
    let pairs = pairs.into_iter().filter_map(pair);
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

fn labels(
    point: &[KeyValue],
    resource: &[KeyValue],
    scope: Option<&Scope>,
    options: &OtlpOptions,
) -> Pairs {
    let mut labels = joined(point, options)?;
    for attribute in resource {
        if options.promote_resource_attributes.contains(&attribute.key) {
            let name = names::label_name(&attribute.key, options.translation).ok()?;
            let label = labels.entry(name.into_owned()).or_default();
            if label.is_empty() {
                *label = text(attribute.value.as_ref());
            }
        }
    }
    labels.extend(identity(resource));
    if let (true, Some(scope)) = (options.promote_scope_metadata, scope)
        && !scope.name.is_empty()
    {
        labels.insert("otel_scope_name".to_owned(), scope.name.clone());
        labels.insert("otel_scope_version".to_owned(), scope.version.clone());
        labels.insert("otel_scope_schema_url".to_owned(), String::new());
    }
    Some(labels)
}

fn value() -> impl Strategy<Value = Option<AnyValue>> {
    prop_oneof![
        6 => "[a-c]{0,2}".prop_map(|s| Some(AnyValue { string: Some(s), int: None })),
        1 => (-3i64..3).prop_map(|n| Some(AnyValue { string: None, int: Some(n) })),
        1 => Just(None),
    ]
}

/// Few names, so that they meet: in one point, after translation, and over points.
fn attributes(names: &'static [&'static str]) -> impl Strategy<Value = Vec<KeyValue>> {
    let one = (prop::sample::select(names), value()).prop_map(|(key, value)| KeyValue {
        key: key.to_owned(),
        value,
    });
    prop::collection::vec(one, 0..4)
}

fn of_points() -> impl Strategy<Value = Vec<KeyValue>> {
    attributes(&[
        "a",
        "a.b",
        "a_b",
        "A",
        "__name__",
        "1x",
        "__",
        "job",
        "host.name",
        "le",
    ])
}

fn of_resources() -> impl Strategy<Value = Vec<KeyValue>> {
    let names = &[
        "service.name",
        "service.namespace",
        "service.instance.id",
        "host.name",
        "os",
    ];
    attributes(names).prop_map(|mut attributes| {
        let mut seen = std::collections::BTreeSet::new();
        attributes.retain(|a| seen.insert(a.key.clone()));
        attributes
    })
}

fn time() -> impl Strategy<Value = u64> {
    let offset = prop::sample::select(&[0i64, -1_000, -200_000][..]);
    prop_oneof![
        12 => offset.prop_map(|ms| ((NOW + ms) * 1_000_000) as u64 + 7),
        1 => Just(0),
    ]
}

fn flags() -> impl Strategy<Value = u32> {
    prop_oneof![8 => Just(0u32), 1 => Just(1)]
}

fn number_point() -> impl Strategy<Value = NumberPoint> {
    let double = prop::option::weighted(0.8, -9.0..9.0f64);
    let int = prop::option::weighted(0.3, -9i64..9);
    (time(), double, int, of_points(), flags()).prop_map(
        |(time, double, int, attributes, flags)| {
            NumberPoint {
                start: time.saturating_sub(60_000_000_000),
                time,
                // As a `oneof`, one of them at most is written.
                double: double.filter(|_| int.is_none()),
                int,
                attributes,
                flags,
            }
        },
    )
}

fn histogram_point() -> impl Strategy<Value = HistogramPoint> {
    let counts = prop::collection::vec(0u64..9, 0..4);
    let sum = prop::option::of(0.0..9.0f64);
    (time(), counts, sum, of_points(), flags()).prop_map(
        |(time, counts, sum, attributes, flags)| {
            let bounds = (1..counts.len()).map(|i| i as f64 / 2.0).collect();
            HistogramPoint {
                time,
                count: counts.iter().sum(),
                sum,
                counts,
                bounds,
                attributes,
                flags,
            }
        },
    )
}

fn summary_point() -> impl Strategy<Value = SummaryPoint> {
    let quantile = (prop::sample::select(&[0.5, 0.9][..]), 0.0..9.0f64);
    let quantile = quantile.prop_map(|(quantile, value)| Quantile { quantile, value });
    let quantiles = prop::collection::vec(quantile, 0..3);
    (
        time(),
        0u64..9,
        0.0..9.0f64,
        quantiles,
        of_points(),
        flags(),
    )
        .prop_map(
            |(time, count, sum, quantiles, attributes, flags)| SummaryPoint {
                time,
                count,
                sum,
                quantiles,
                attributes,
                flags,
            },
        )
}

fn metric() -> impl Strategy<Value = Metric> {
    let temporality = prop::sample::select(&[2u64, 2, 1, 0][..]);
    let points = || prop::collection::vec(number_point(), 0..4);
    let data = prop_oneof![
        points().prop_map(|points| Metric {
            gauge: Some(Gauge { points }),
            ..Metric::default()
        }),
        (points(), temporality.clone(), any::<bool>()).prop_map(
            |(points, temporality, monotonic)| {
                let sum = Sum {
                    points,
                    temporality,
                    monotonic,
                };
                Metric {
                    sum: Some(sum),
                    ..Metric::default()
                }
            }
        ),
        (prop::collection::vec(histogram_point(), 0..3), temporality).prop_map(
            |(points, temporality)| {
                let histogram = Histogram {
                    points,
                    temporality,
                };
                Metric {
                    histogram: Some(histogram),
                    ..Metric::default()
                }
            }
        ),
        prop::collection::vec(summary_point(), 0..3).prop_map(|points| Metric {
            summary: Some(Summary { points }),
            ..Metric::default()
        }),
    ];
    let name = prop::sample::select(&["m", "m.n", "m_n", "requests", "", "..."][..]);
    let unit = prop::sample::select(&["", "s", "By/s", "1", "{x}"][..]);
    (name, unit, "[a-b]{0,1}", data).prop_map(|(name, unit, description, data)| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description,
        ..data
    })
}

fn request() -> impl Strategy<Value = Request> {
    let scope = prop::option::of(("[a-b]{0,1}", "[1-2]{0,1}"));
    let scope = scope.prop_map(|s| s.map(|(name, version)| Scope { name, version }));
    let scope = (scope, prop::collection::vec(metric(), 0..4));
    let scope = scope.prop_map(|(scope, metrics)| ScopeMetrics { scope, metrics });
    let resource = (of_resources(), prop::collection::vec(scope, 0..3));
    let resource = resource.prop_map(|(attributes, scopes)| ResourceMetrics {
        resource: Some(Resource { attributes }),
        scopes,
    });
    prop::collection::vec(resource, 0..4).prop_map(|resources| Request { resources })
}

fn options() -> impl Strategy<Value = OtlpOptions> {
    let strategy = prop::sample::select(
        &[
            TranslationStrategy::UnderscoreEscapingWithSuffixes,
            TranslationStrategy::UnderscoreEscapingWithoutSuffixes,
            TranslationStrategy::NoUtf8EscapingWithSuffixes,
            TranslationStrategy::NoTranslation,
        ][..],
    );
    let delta = prop::sample::select(
        &[
            DeltaTemporality::Accumulate,
            DeltaTemporality::Store,
            DeltaTemporality::Refuse,
        ][..],
    );
    (strategy, delta, any::<bool>(), any::<bool>()).prop_map(
        |(translation, delta, scope, promote)| OtlpOptions {
            translation,
            delta,
            promote_scope_metadata: scope,
            promote_resource_attributes: match promote {
                true => vec!["host.name".to_owned()],
                false => Vec::new(),
            },
            ..OtlpOptions::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_decoder_and_a_naive_one_agree(request in request(), options in options()) {
        let naive = Naive::of(&request, &options);
        let body = request.encode_to_vec();
        let mut probe = probe(IngestOptions { otlp: options, ..IngestOptions::default() });
        // The second time every series is known.
        for _ in 0..2 {
            let (stored, report) = decode(&mut probe, ProbeFormat::Otlp, &body).unwrap();
            prop_assert_eq!(&stored, &naive.stored);
            prop_assert_eq!(report.items(), naive.refused);
        }
    }
}
