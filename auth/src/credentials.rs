//! What a request shows of a token, in the forms that clients have.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::Secret;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// Something that cannot be a token of ours.
    Garbage,
    /// A token; whether it is good has still to be seen.
    Token(Secret),
}

/// Reads the header `Authorization` as `Bearer <token>`, `Basic <user:token>` (any user) or Influx's `Token
/// <token>` (or `Token <user>:<token>`); without one, and where `in_query` allows it, Influx 1's parameter
/// `p`.
#[must_use]
pub fn presented(headers: &HeaderMap, query: Option<&str>, in_query: bool) -> Presented {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    if let Some(value) = values.next() {
        // Two of them: who knows which one a proxy in front has checked.
        if values.next().is_some() {
            return Presented::Garbage;
        }
        let secret = value.to_str().ok().and_then(from_header);
        return secret.map_or(Presented::Garbage, Presented::Token);
    }
    if !in_query {
        return Presented::Nothing;
    }
    match query.and_then(|query| parameter(query, "p")) {
        None => Presented::Nothing,
        Some(password) => Secret::parse(password).map_or(Presented::Garbage, Presented::Token),
    }
}

fn from_header(value: &str) -> Option<Secret> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        Secret::parse(rest)
    } else if scheme.eq_ignore_ascii_case("token") {
        Secret::parse(rest.rsplit(':').next()?)
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (_, password) = decoded.split_once(':')?;
        Secret::parse(password)
    } else {
        None
    }
}

/// A token has no character that is ever escaped, so values are taken as they stand.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// The parameters of a query string or form whose values are no secrets, as they stand: all but those by
/// which passwords and tokens are sent.
#[must_use]
pub fn without_secrets(query: &str) -> String {
    const SECRET: [&str; 6] = ["p", "password", "token", "access_token", "secret", "auth"];
    let kept = query.split('&').map(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let holds_token = pair.contains("mr_");
        if SECRET.contains(&name.to_ascii_lowercase().as_str()) || holds_token {
            format!("{}=***", if name.contains("mr_") { "" } else { name })
        } else {
            pair.to_owned()
        }
    });
    kept.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(header: &str) -> Presented {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
        presented(&headers, Some("p=mr_x"), true)
    }

    #[test]
    fn every_client_has_its_form() {
        let secret = Secret::generate().unwrap();
        let token = secret.reveal();
        let basic = BASE64_STANDARD.encode(format!("any user:{token}"));
        for header in [
            format!("Bearer {token}"),
            format!("bearer  {token} "),
            format!("Token {token}"),
            format!("Token me:{token}"),
            format!("Basic {basic}"),
            format!("BASIC {basic}"),
        ] {
            assert_eq!(of(&header), Presented::Token(secret.clone()), "{header}");
        }
        let query = format!("db=x&u=me&p={token}");
        let none = HeaderMap::new();
        let found = presented(&none, Some(&query), true);
        assert_eq!(found, Presented::Token(secret));
        assert_eq!(presented(&none, Some(&query), false), Presented::Nothing);
        assert_eq!(presented(&none, Some("db=x"), true), Presented::Nothing);
        assert_eq!(presented(&none, None, true), Presented::Nothing);
    }

    #[test]
    fn what_is_no_token_is_garbage_and_not_nothing() {
        let plain = BASE64_STANDARD.encode("admin:admin");
        for header in [
            "Bearer",
            "Bearer ",
            "Bearer abc",
            "Digest x",
            "Basic !!",
            &format!("Basic {plain}"),
            "mr_1_2",
        ] {
            assert_eq!(of(header), Presented::Garbage, "{header}");
        }
        let garbage = presented(&HeaderMap::new(), Some("p=secret"), true);
        assert_eq!(garbage, Presented::Garbage);
        let secret = Secret::generate().unwrap();
        let value = HeaderValue::from_str(&format!("Bearer {}", secret.reveal())).unwrap();
        let mut twice = HeaderMap::new();
        twice.append(AUTHORIZATION, value.clone());
        twice.append(AUTHORIZATION, value);
        assert_eq!(presented(&twice, None, true), Presented::Garbage);
    }

    #[test]
    fn parameters_are_told_without_secrets() {
        let secret = Secret::generate().unwrap();
        let token = secret.reveal();
        for (query, expect) in [
            ("match[]=up&start=1", "match[]=up&start=1".to_owned()),
            ("u=me&p=hunter2&db=x", "u=me&p=***&db=x".to_owned()),
            ("Token=1&x", "Token=***&x".to_owned()),
            (&format!("q={token}"), "q=***".to_owned()),
            (&format!("{token}=1"), "=***".to_owned()),
            ("", String::new()),
        ] {
            assert_eq!(without_secrets(query), expect);
        }
    }
}
