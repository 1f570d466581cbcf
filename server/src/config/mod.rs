//! The configuration: one TOML file, the environment over it, flags over both.
//!
//! **Invariants:**
//! - [`SETTINGS`](settings::SETTINGS) is the only list of settings;
//! - every value remembers its [`Origin`](error::Origin), and every error names it;
//! - a [`Config`] has passed the rules between settings; only it starts a server.

mod error;
mod file;
mod fleet_rules;
pub mod kind;
mod load;
mod page;
mod rules;
pub mod settings;

pub use error::ConfigError;
pub use load::{Config, Layers, load};
pub use page::{effective, reference, yaml};
#[cfg(feature = "kafka")]
pub(crate) use rules::broken;
pub use rules::one_request_fits;
