//! Which parts of the pipeline a process runs.

use millrace_queue::is_address;

use super::{Kind, Raw, quoted, text};

/// The parts that a process runs: at least one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Takes pushes and appends them to the queue.
    pub ingest: bool,
    /// Applies the queue's partitions and answers the fleet's reads.
    pub store: bool,
    /// Answers PromQL.
    pub query: bool,
}

impl Roles {
    /// All parts in one process.
    pub const ALL: Self = Self {
        ingest: true,
        store: true,
        query: true,
    };
    const NONE: Self = Self {
        ingest: false,
        store: false,
        query: false,
    };

    /// The names of the roles, in the order in which a sample passes them.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.ingest, "ingest"),
            (self.store, "store"),
            (self.query, "query"),
        ];
        let on = all.into_iter().filter(|(on, _)| *on);
        on.map(|(_, name)| name).collect()
    }
}

impl Kind for Roles {
    const NAME: &'static str = "\"all\", or a list of \"ingest\", \"store\", \"query\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        let mut roles = Self::NONE;
        for name in Vec::<String>::read(raw)? {
            match name.as_str() {
                "all" => roles = Self::ALL,
                "ingest" => roles.ingest = true,
                "store" => roles.store = true,
                "query" => roles.query = true,
                other => {
                    return Err(format!(
                        "{other:?} is no role; there are ingest, store, query, and all for all \
                         of them"
                    ));
                }
            }
        }
        if roles == Self::NONE {
            return Err("must name at least one of ingest, store, query, or all".to_owned());
        }
        Ok(roles)
    }

    fn to_toml(&self) -> String {
        if *self == Self::ALL {
            quoted("all")
        } else {
            quoted(&self.names().join(","))
        }
    }
}

/// Which address a store announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// The one that it listens on.
    Auto,
    /// None: whoever asks knows it.
    Never,
    /// This one, `host:port`.
    Address(String),
}

impl Kind for Advertise {
    const NAME: &'static str = "host:port, \"auto\" or \"none\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match text(raw, "auto")?.as_str() {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::Never),
            address if is_address(address) => Ok(Self::Address(address.to_owned())),
            other => Err(format!(
                "{other:?} is no address: host:port is needed, or auto, or none"
            )),
        }
    }

    fn to_toml(&self) -> String {
        quoted(match self {
            Self::Auto => "auto",
            Self::Never => "none",
            Self::Address(address) => address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_is_one() {
        for (text, expect) in [
            ("auto", Ok(Advertise::Auto)),
            ("none", Ok(Advertise::Never)),
            ("s:1", Ok(Advertise::Address("s:1".to_owned()))),
            ("s", Err("\"s\" is no address")),
        ] {
            let found = Advertise::read(&Raw::Text(text.to_owned()));
            match (found, expect) {
                (Ok(found), Ok(expect)) => {
                    assert_eq!(found, expect);
                    assert_eq!(found.to_toml(), quoted(text));
                }
                (Err(reason), Err(expect)) => assert!(reason.starts_with(expect), "{reason}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn any_set_of_roles_is_read_and_written() {
        for (text, expect) in [
            ("all", Ok("\"all\"")),
            ("ingest,store,query", Ok("\"all\"")),
            ("query, ingest", Ok("\"ingest,query\"")),
            ("store", Ok("\"store\"")),
            ("", Err("must name at least one")),
            ("ingest,dance", Err("\"dance\" is no role")),
        ] {
            let found = Roles::read(&Raw::Text(text.to_owned()));
            match (found, expect) {
                (Ok(roles), Ok(expect)) => assert_eq!(roles.to_toml(), expect),
                (Err(reason), Err(expect)) => assert!(reason.starts_with(expect), "{reason}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
        let list = Raw::List(vec![Raw::Text("store".to_owned())]);
        assert_eq!(Roles::read(&list).unwrap().names(), ["store"]);
    }
}
