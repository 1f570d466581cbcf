// A counter, a gauge and a histogram by the OpenTelemetry SDK, as OTLP JSON or protobuf over HTTP.
import { MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { OTLPMetricExporter as Json } from '@opentelemetry/exporter-metrics-otlp-http';
import { OTLPMetricExporter as Proto } from '@opentelemetry/exporter-metrics-otlp-proto';

const [url, name, form] = process.argv.slice(2);
const exporter = new (form === 'json' ? Json : Proto)({ url });
const provider = new MeterProvider({
  resource: resourceFromAttributes({ 'service.name': name, 'service.instance.id': 'one' }),
  readers: [new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3600000 })],
});
const meter = provider.getMeter('trial');
const counter = meter.createCounter('trial.jobs', { unit: '1' });
const gauge = meter.createGauge('trial.temperature', { unit: 'Cel' });
const histogram = meter.createHistogram('trial.duration', { unit: 's' });
for (let i = 0; i < 7; i++) {
  counter.add(6, { kind: 'a' });
  gauge.record(20.5 + i, { room: 'r1' });
  histogram.record(0.1 * i, { kind: 'a' });
}
await provider.shutdown();
