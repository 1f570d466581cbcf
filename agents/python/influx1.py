"""Points by the client library for InfluxDB 1."""
import sys
from urllib.parse import urlsplit

from influxdb import InfluxDBClient

url = urlsplit(sys.argv[1])
client = InfluxDBClient(host=url.hostname, port=url.port, database="trial")
client.create_database("trial")
points = [
    {"measurement": "trial", "tags": {"agent": sys.argv[2]}, "fields": {"jobs": 42.0, "up": True}}
]
assert client.write_points(points, time_precision="ms")
