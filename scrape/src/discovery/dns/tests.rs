use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::*;

/// What a name has, or which code (RFC 1035, section 4.1.1) is all that is said.
type Zone = HashMap<(&'static str, u16), Result<Vec<Vec<u8>>, u8>>;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// A name server on loopback, for as long as the process runs.
struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let answers = zone.clone();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question) {
                if let Some(answer) = answer(&question[..length], &answers.lock().unwrap()) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
        });
        Self { address, zone }
    }

    fn set(&self, name: &'static str, kind: u16, said: Result<Vec<Vec<u8>>, u8>) {
        self.zone.lock().unwrap().insert((name, kind), said);
    }

    /// Asks it and nobody else.
    fn resolver(&self) -> TokioResolver {
        let mut server = NameServerConfig::udp(self.address.ip());
        for connection in &mut server.connections {
            connection.port = self.address.port();
        }
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        builder.options_mut().timeout = Duration::from_secs(2);
        builder.options_mut().attempts = 1;
        builder.build().unwrap()
    }
}

/// The answer to a question; `None` for a name that nothing is said about.
fn answer(question: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), 12);
    while question[at] > 0 {
        let label = &question[at + 1..=at + usize::from(question[at])];
        name.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + label.len();
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let name = name.join(".");
    let (_, said) = zone.iter().find(|((n, k), _)| *n == name && *k == kind)?;
    let (code, records) = match said {
        Ok(records) => (0, records.as_slice()),
        Err(code) => (*code, &[][..]),
    };
    let mut out = question[..2].to_vec();
    // An answer to a recursive question; one question, so many answers, nothing else.
    out.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    out.extend(&question[12..at + 5]);
    for record in records {
        out.extend(record);
    }
    Some(out)
}

/// A record of the name that was asked for, which may not be kept.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0, 12];
    out.extend(kind.to_be_bytes());
    out.extend([0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
    out.extend(data);
    out
}

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.');
    let mut out: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    out.push(0);
    out
}

fn srv(port: u16, target: &str) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 2];
    data.extend(port.to_be_bytes());
    data.extend(name(target));
    record(SRV, &data)
}

fn asking(record: RecordType, port: u16) -> DnsSd {
    DnsSd {
        record,
        port,
        ..DnsSd::default()
    }
}

async fn addresses(
    resolver: &TokioResolver,
    sd: &DnsSd,
    name: &str,
) -> Result<Vec<String>, String> {
    let found = look_up(resolver, sd, name).await?;
    let group = group(name, found);
    let labels = group.labels();
    Ok(labels.map(|l| l.get("__address__").to_owned()).collect())
}

#[tokio::test]
async fn addresses_and_services_are_found_at_a_name_server() {
    let server = NameServer::start();
    let v4 = |last| record(A, &Ipv4Addr::new(10, 0, 0, last).octets());
    server.set("meters.test", A, Ok(vec![v4(2), v4(1), v4(2)]));
    let v6 = record(AAAA, &Ipv6Addr::LOCALHOST.octets());
    server.set("meters.test", AAAA, Ok(vec![v6]));
    let services = vec![srv(9100, "b.meters.test"), srv(9200, "a.meters.test")];
    server.set("_http._tcp.meters.test", SRV, Ok(services));
    let resolver = server.resolver();
    let (a, aaaa, srv) = (
        asking(RecordType::A, 80),
        asking(RecordType::Aaaa, 81),
        asking(RecordType::Srv, 0),
    );
    let found = addresses(&resolver, &a, "meters.test").await.unwrap();
    assert_eq!(found, ["10.0.0.1:80", "10.0.0.2:80"]);
    let found = addresses(&resolver, &aaaa, "meters.test").await.unwrap();
    assert_eq!(found, ["[::1]:81"]);
    let service = "_http._tcp.meters.test";
    let found = addresses(&resolver, &srv, service).await.unwrap();
    assert_eq!(found, ["a.meters.test:9200", "b.meters.test:9100"]);
    // What has changed is seen at the next look: nothing is kept beyond what the records allow.
    server.set("meters.test", A, Ok(vec![v4(9)]));
    let found = addresses(&resolver, &a, "meters.test").await.unwrap();
    assert_eq!(found, ["10.0.0.9:80"]);
}

#[tokio::test]
async fn an_alias_is_followed() {
    let server = NameServer::start();
    let alias = record(CNAME, &name("meters.test"));
    // Of the alias's target: its name is the alias's data, which begins where that record's does.
    let mut address = name("meters.test");
    address.extend(&record(A, &[10, 0, 0, 7])[2..]);
    server.set("alias.test", A, Ok(vec![alias, address]));
    let sd = asking(RecordType::A, 80);
    let found = addresses(&server.resolver(), &sd, "alias.test").await;
    assert_eq!(found.unwrap(), ["10.0.0.7:80"]);
}

#[tokio::test]
async fn a_name_that_is_gone_has_no_targets_and_a_server_that_fails_says_nothing() {
    let server = NameServer::start();
    server.set("gone.test", A, Err(NO_SUCH_NAME));
    server.set("broken.test", A, Err(SERVER_FAILURE));
    server.set("empty.test", A, Ok(Vec::new()));
    let (resolver, sd) = (server.resolver(), asking(RecordType::A, 80));
    for name in ["gone.test", "empty.test"] {
        assert!(addresses(&resolver, &sd, name).await.unwrap().is_empty());
    }
    // So what was known of it stays.
    assert!(look_up(&resolver, &sd, "broken.test").await.is_err());
    // Nobody answers.
    assert!(look_up(&resolver, &sd, "silent.test").await.is_err());
}

#[test]
fn records_become_addresses() {
    let found = |host: &str, srv| Found {
        host: host.to_owned(),
        port: 9100,
        srv,
    };
    let group = group(
        "name",
        vec![
            found("10.0.0.1", false),
            found("::1", false),
            found("a.b.", true),
        ],
    );
    let labels: Vec<_> = group.labels().collect();
    let addresses: Vec<_> = labels.iter().map(|l| l.get("__address__")).collect();
    assert_eq!(addresses, ["10.0.0.1:9100", "[::1]:9100", "a.b:9100"]);
    assert_eq!(labels[0].get("__meta_dns_name"), "name");
    assert!(!labels[0].has("__meta_dns_srv_record_target"));
    assert_eq!(labels[2].get("__meta_dns_srv_record_target"), "a.b.");
    assert_eq!(labels[2].get("__meta_dns_srv_record_port"), "9100");
}
