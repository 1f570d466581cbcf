// Points by the client library for InfluxDB 2.
import { InfluxDB, Point } from '@influxdata/influxdb-client';

const [url, name] = process.argv.slice(2);
const api = new InfluxDB({ url, token: 'unused' }).getWriteApi('trial', 'trial', 'ms');
api.writePoint(new Point('trial').tag('agent', name).floatField('jobs', 42).intField('count', 7));
await api.close();
