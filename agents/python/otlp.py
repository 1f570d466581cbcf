"""A counter, a gauge and a histogram by the OpenTelemetry SDK, as OTLP protobuf over HTTP."""
import sys

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

url, name = sys.argv[1:]
reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=url))
resource = Resource.create({"service.name": name, "service.instance.id": "one"})
provider = MeterProvider(resource=resource, metric_readers=[reader])
meter = provider.get_meter("trial")
counter = meter.create_counter("trial.jobs", unit="1")
gauge = meter.create_gauge("trial.temperature", unit="Cel")
histogram = meter.create_histogram("trial.duration", unit="s")
for i in range(7):
    counter.add(6, {"kind": "a"})
    gauge.set(20.5 + i, {"room": "r1"})
    histogram.record(0.1 * i, {"kind": "a"})
# Exports what there is, and raises nothing if it fails: the trial looks for the samples.
provider.shutdown()
