//! What stands before every route of the admin port: host name, origin, token, time. A request that
//! does not pass is answered before its body is read and learns nothing about which routes exist.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, ORIGIN};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{Code, Error};
use super::routes::BODY_BYTES_MAX;
use super::token::Token;

/// Longest time a request may take, its body and its long poll included.
pub const REQUEST_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 60 });

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the guard needs to know of its port.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    pub(super) token: Token,
    pub(super) scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Plain, and so on loopback.
    Http,
    /// With a certificate, which no foreign name has: a browser that was made to come here by another
    /// name does not get past it.
    Https,
}

/// Lets a request through that names a host of ours, comes from no other site and carries the token.
pub(super) async fn guard(
    State(guarded): State<Guarded>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(error) = admit(request.headers(), &guarded) {
        return error.into_response();
    }
    if let Some(error) = announces_too_much(request.headers()) {
        return error.into_response();
    }
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::new(
            Code::TooSlow,
            format!(
                "the request took longer than {} s",
                REQUEST_TIME_MAX.as_secs()
            ),
            "send less at once, or wait for less",
        )
        .into_response(),
    }
}

/// A body that says itself that it is too large is not waited for.
fn announces_too_much(headers: &HeaderMap) -> Option<Error> {
    let announced: u64 = only(headers, &CONTENT_LENGTH)?.parse().ok()?;
    (announced > BODY_BYTES_MAX as u64).then(body_too_large)
}

/// The answer to a larger body than [`BODY_BYTES_MAX`].
pub(super) fn body_too_large() -> Error {
    Error::new(
        Code::TooLarge,
        format!("the body is over {BODY_BYTES_MAX} bytes"),
        "send fewer messages in one request",
    )
}

fn admit(headers: &HeaderMap, guarded: &Guarded) -> Result<(), Error> {
    let Guarded { token, scheme } = guarded;
    let host = only(headers, &HOST).filter(|host| *scheme == Scheme::Https || is_loopback(host));
    let Some(host) = host else {
        // DNS rebinding: a foreign name that was made to point here.
        return Err(Error::new(
            Code::ForbiddenHost,
            "the admin port answers only to a loopback address as its name",
            "use the address in admin.json, for example http://127.0.0.1:4180",
        ));
    };
    let foreign_origin = headers
        .get_all(ORIGIN)
        .iter()
        .any(|origin| origin.as_bytes() != format!("{}://{host}", scheme.name()).as_bytes());
    let foreign_site = headers
        .get_all(SEC_FETCH_SITE)
        .iter()
        .any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if foreign_origin || foreign_site {
        return Err(Error::new(
            Code::ForbiddenOrigin,
            "requests of another site are refused",
            "",
        ));
    }
    let offered = only(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    if offered.is_some_and(|offered| token.matches(offered.as_bytes())) {
        return Ok(());
    }
    Err(Error::new(
        Code::Unauthorized,
        "the admin port wants the header `Authorization: Bearer TOKEN`",
        "the token is in the file admin-token of the host's data directory, or in WASMILL_TOKEN",
    ))
}

impl Scheme {
    const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The value of a header that stands there exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// `localhost` or a loopback address, with or without a port (a tunnel may have moved it).
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if is_port(port) => name,
            _ => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) if is_port_number(port) => name,
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(is_port_number)
}

fn is_port_number(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:4180",
            "localhost:80",
            "LOCALHOST",
            "[::1]:4180",
            "[::1]",
            "127.9.9.9:1",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:4180",
            "127.0.0.1.evil.example",
            "localhost.evil.example:4180",
            "10.0.0.1:4180",
            "[::1]evil",
            "localhost:evil",
            "[::2]:1",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn code(pairs: &[(&'static str, &str)]) -> Result<(), Code> {
        code_over(Scheme::Http, pairs)
    }

    fn code_over(scheme: Scheme, pairs: &[(&'static str, &str)]) -> Result<(), Code> {
        let token = Token::from_text("secret").unwrap();
        admit(&headers(pairs), &Guarded { token, scheme }).map_err(|error| error.code)
    }

    #[test]
    fn over_tls_any_name_will_do_and_the_token_and_the_site_count_as_before() {
        let host = ("host", "wasmill.example:4180");
        let over = |more: &[(&'static str, &str)]| {
            let all: Vec<_> = [host].iter().chain(more).copied().collect();
            code_over(Scheme::Https, &all)
        };
        assert_eq!(over(&[GOOD_TOKEN]), Ok(()));
        assert_eq!(over(&[]), Err(Code::Unauthorized));
        let own = ("origin", "https://wasmill.example:4180");
        assert_eq!(over(&[GOOD_TOKEN, own]), Ok(()));
        let plain = ("origin", "http://wasmill.example:4180");
        assert_eq!(over(&[GOOD_TOKEN, plain]), Err(Code::ForbiddenOrigin));
    }

    const GOOD_HOST: (&str, &str) = ("host", "127.0.0.1:4180");
    const GOOD_TOKEN: (&str, &str) = ("authorization", "Bearer secret");

    #[test]
    fn the_token_alone_opens_and_everything_else_does_not() {
        assert_eq!(code(&[GOOD_HOST, GOOD_TOKEN]), Ok(()));
        for bad in [
            "Bearer wrong!",
            "Bearer",
            "secret",
            "bearer secret",
            "Basic secret",
            "Bearer secret ",
        ] {
            assert_eq!(
                code(&[GOOD_HOST, ("authorization", bad)]),
                Err(Code::Unauthorized),
                "{bad}"
            );
        }
        assert_eq!(code(&[GOOD_HOST]), Err(Code::Unauthorized));
        assert_eq!(
            code(&[GOOD_HOST, GOOD_TOKEN, GOOD_TOKEN]),
            Err(Code::Unauthorized)
        );
    }

    #[test]
    fn a_foreign_or_doubled_host_is_refused_even_with_the_token() {
        assert_eq!(code(&[GOOD_TOKEN]), Err(Code::ForbiddenHost));
        assert_eq!(
            code(&[("host", "evil.example"), GOOD_TOKEN]),
            Err(Code::ForbiddenHost)
        );
        assert_eq!(
            code(&[GOOD_HOST, GOOD_HOST, GOOD_TOKEN]),
            Err(Code::ForbiddenHost)
        );
    }

    #[test]
    fn a_request_of_another_site_is_refused_even_with_the_token() {
        let origin = |value| code(&[GOOD_HOST, GOOD_TOKEN, ("origin", value)]);
        assert_eq!(origin("http://127.0.0.1:4180"), Ok(()));
        for foreign in [
            "null",
            "http://evil.example",
            "https://127.0.0.1:4180",
            "http://127.0.0.1:9",
        ] {
            assert_eq!(origin(foreign), Err(Code::ForbiddenOrigin), "{foreign}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(
                code(&[GOOD_HOST, GOOD_TOKEN, ("sec-fetch-site", site)]),
                Err(Code::ForbiddenOrigin)
            );
        }
    }
}
