//! `dns_sd_configs`: targets that names resolve to.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType as Record};

use super::{Finder, Group, ticks};
use crate::config::{DnsSd, RecordType};

/// A target that a record names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    host: String,
    port: u16,
    /// Whether it is named by an SRV record.
    srv: bool,
}

pub(super) async fn run(finder: Finder, sd: DnsSd) {
    let mut resolver = None;
    let mut ticks = ticks(sd.refresh_interval.0);
    let mut known: HashMap<String, Group> = HashMap::new();
    loop {
        ticks.tick().await;
        let resolver = match &resolver {
            Some(made) => made,
            // The system's configuration may come later than this process.
            None => match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
                Ok(made) => &*resolver.insert(made),
                Err(error) => {
                    finder.failed("dns", "the system's resolver", &error.to_string());
                    continue;
                }
            },
        };
        for name in &sd.names {
            match look_up(resolver, &sd, name).await {
                Ok(found) => drop(known.insert(name.clone(), group(name, found))),
                Err(error) => finder.failed("dns", name, &error),
            }
        }
        let groups = sd.names.iter().filter_map(|name| known.get(name).cloned());
        if !finder.tell(groups.collect()) {
            return;
        }
    }
}

async fn look_up(resolver: &TokioResolver, sd: &DnsSd, name: &str) -> Result<Vec<Found>, String> {
    let record = match sd.record {
        RecordType::A => Record::A,
        RecordType::Aaaa => Record::AAAA,
        RecordType::Srv => Record::SRV,
    };
    let answer = match resolver.lookup(name, record).await {
        Ok(answer) => answer,
        // A name that is gone has no targets, as in Prometheus.
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let found = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(of_address(IpAddr::V4(address.0), sd.port)),
            RData::AAAA(address) => Some(of_address(IpAddr::V6(address.0), sd.port)),
            RData::SRV(srv) => Some(Found {
                host: srv.target.to_string(),
                port: srv.port,
                srv: true,
            }),
            // An alias on the way, and whatever else an answer brings along.
            _ => None,
        });
    let mut found: Vec<Found> = found.collect();
    found.sort();
    found.dedup();
    Ok(found)
}

fn of_address(address: IpAddr, port: u16) -> Found {
    Found {
        host: address.to_string(),
        port,
        srv: false,
    }
}

fn group(name: &str, found: Vec<Found>) -> Group {
    let target = |found: Found| {
        // Prometheus takes the dot off a name's end.
        let host = found.host.trim_end_matches('.');
        let address = match host.contains(':') {
            true => format!("[{host}]:{}", found.port),
            false => format!("{host}:{}", found.port),
        };
        let (srv_host, srv_port) = match found.srv {
            true => (found.host.clone(), found.port.to_string()),
            false => (String::new(), String::new()),
        };
        BTreeMap::from([
            ("__address__".to_owned(), address),
            ("__meta_dns_name".to_owned(), name.to_owned()),
            ("__meta_dns_srv_record_target".to_owned(), srv_host),
            ("__meta_dns_srv_record_port".to_owned(), srv_port),
        ])
    };
    Group {
        targets: found.into_iter().map(target).collect(),
        labels: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
