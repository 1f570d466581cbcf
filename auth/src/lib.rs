//! Who may do what: tokens and their file, what a request shows of them, TLS material, the audit log.
//!
//! **Invariants:**
//! - a secret is made here, shown once, and kept nowhere: the file holds its hash, and no type that holds
//!   a secret prints it;
//! - whoever cannot be checked is refused: a file that cannot be read is never an empty one, and a bad
//!   new file leaves the old tokens (or the old certificate) in force;
//! - nothing here knows a runtime or a route. What a route needs stands in the server's table of routes.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests read and write their own fixtures"
    )
)]

mod audit;
mod book;
mod credentials;
mod error;
mod file;
mod secret;
pub mod tls;
mod token;

pub use audit::{Act, AuditLog, Who};
pub use book::{Denied, Identity, TokenBook};
pub use credentials::{Presented, presented, without_secrets};
pub use error::AuthError;
pub use file::{NewToken, TokensFile};
pub use secret::{Secret, TokenId};
pub use token::{ForTenant, Scope, Scopes, Token, TokenState};
