"""A batch job's metrics by Prometheus's client library, as to a Pushgateway."""
import sys

from prometheus_client import CollectorRegistry, Counter, Gauge, push_to_gateway, pushadd_to_gateway

url, name = sys.argv[1:]
registry = CollectorRegistry()
Gauge("trial_jobs", "Jobs", registry=registry).set(42)
push_to_gateway(url, job=name, registry=registry)
registry = CollectorRegistry()
Counter("trial_runs", "Runs", registry=registry).inc(3)
pushadd_to_gateway(url, job=name, registry=registry)
