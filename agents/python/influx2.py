"""Points by the client library for InfluxDB 2, synchronously and in batches, gzipped."""
import sys

from influxdb_client import InfluxDBClient, Point
from influxdb_client.client.write_api import SYNCHRONOUS

url, name = sys.argv[1:]
with InfluxDBClient(url=url, token="unused", org="trial", enable_gzip=True) as client:
    assert client.ping()
    point = Point("trial").tag("agent", name).field("jobs", 42.0).field("count", 7)
    client.write_api(write_options=SYNCHRONOUS).write(bucket="trial", record=point)
    with client.write_api() as batches:
        for room in range(50):
            point = Point("trial_rooms").tag("agent", name).tag("room", f"r{room}")
            batches.write(bucket="trial", record=point.field("jobs", float(room)))
