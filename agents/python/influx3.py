"""Points by the client library for InfluxDB 3."""
import sys

from influxdb_client_3 import InfluxDBClient3, Point, SYNCHRONOUS, write_client_options

url, name = sys.argv[1:]
options = write_client_options(write_options=SYNCHRONOUS)
with InfluxDBClient3(host=url, database="trial", token="unused", write_client_options=options) as client:
    client.write(Point("trial").tag("agent", name).field("jobs", 42.0))
