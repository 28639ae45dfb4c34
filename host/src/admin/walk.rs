//! Every route of the description (OpenAPI), over real sockets, by somebody who should not be let in or
//! sends what nobody should. A new route is walked as soon as it is described.

use utoipa::openapi::path::Operation;

use super::openapi::describe;
use super::routes::BODY_BYTES_MAX;
use super::tests::{host, request};

/// One operation, with something in the place of each parameter.
struct Route {
    method: &'static str,
    path: String,
    takes_body: bool,
}

fn routes() -> Vec<Route> {
    let openapi = describe();
    let mut routes = Vec::new();
    for (path, item) in &openapi.paths.paths {
        let operations = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("DELETE", &item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                routes.push(Route {
                    method,
                    path: filled(path, "0"),
                    takes_body: takes_body(operation),
                });
            }
        }
    }
    assert!(routes.len() >= 12, "{}", routes.len());
    routes
}

fn takes_body(operation: &Operation) -> bool {
    operation.request_body.is_some()
}

/// The path with `value` in the place of each `{parameter}`.
fn filled(path: &str, value: &str) -> String {
    let mut filled = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        filled.push_str(value);
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    filled + rest
}

const HOST: (&str, &str) = ("Host", "127.0.0.1");

#[test]
fn no_route_answers_without_its_token_or_with_another() {
    let host = host();
    let right = host.token();
    let cut = right.get(..right.len() - 1).unwrap();
    for route in routes() {
        for wrong in [
            "",
            "Bearer",
            "Bearer wrong",
            &format!("Bearer {cut}"),
            &format!("Basic {right}"),
        ] {
            let mut headers = vec![HOST, ("Content-Length", "0")];
            if !wrong.is_empty() {
                headers.push(("Authorization", wrong));
            }
            let (status, body) = host.admin(&request(route.method, &route.path, &headers));
            assert_eq!(status, 401, "{} {} {wrong:?}", route.method, route.path);
            assert!(body.contains("unauthorized"), "{body}");
        }
    }
}

#[test]
fn no_route_answers_a_web_page_or_another_name() {
    let host = host();
    let token = format!("Bearer {}", host.token());
    for route in routes() {
        for (code, extra) in [
            ("forbidden_origin", ("Origin", "http://evil.example")),
            ("forbidden_origin", ("Sec-Fetch-Site", "cross-site")),
        ] {
            let headers = [
                HOST,
                ("Authorization", &token),
                ("Content-Length", "0"),
                extra,
            ];
            let (status, body) = host.admin(&request(route.method, &route.path, &headers));
            assert_eq!(status, 403, "{} {}", route.method, route.path);
            assert!(body.contains(code), "{body}");
        }
        let headers = [
            ("Host", "evil.example"),
            ("Authorization", &token),
            ("Content-Length", "0"),
        ];
        let (status, _) = host.admin(&request(route.method, &route.path, &headers));
        assert_eq!(status, 403, "{} {}", route.method, route.path);
    }
}

#[test]
fn no_route_that_takes_a_body_takes_a_malformed_or_oversized_one() {
    let host = host();
    let token = format!("Bearer {}", host.token());
    let before = host.remote_topics();
    for route in routes().into_iter().filter(|route| route.takes_body) {
        let send = |kind: &str, length: usize, body: &str| {
            let length = length.to_string();
            let headers = [
                HOST,
                ("Authorization", token.as_str()),
                ("Content-Type", kind),
                ("Content-Length", &length),
            ];
            let head = request(route.method, &route.path, &headers);
            host.admin(&format!("{head}{body}")).0
        };
        for body in [
            "",
            "{",
            "[]",
            "7",
            "null",
            "\"text\"",
            "{\"unknown field\": 1}",
            "\u{fffd}\u{0}",
        ] {
            let status = send("application/json", body.len(), body);
            assert!(
                (400..500).contains(&status),
                "{} {} {body:?}: {status}",
                route.method,
                route.path
            );
        }
        let status = send("text/plain", 2, "{}");
        assert_eq!(status, 400, "{} {}", route.method, route.path);
        // Refused by what it announces, before it is sent.
        let status = send("application/json", BODY_BYTES_MAX + 1, "");
        assert_eq!(status, 413, "{} {}", route.method, route.path);
    }
    assert_eq!(host.remote_topics(), before);
}

#[test]
fn no_route_is_led_astray_by_its_path_or_its_query() {
    let host = host();
    let token = format!("Bearer {}", host.token());
    let openapi = describe();
    for path in openapi.paths.paths.keys() {
        for value in [
            "..%2f..%2fetc%2fpasswd",
            "%00",
            "%ff",
            "-1",
            "18446744073709551616",
            "a%20b",
        ] {
            let path = filled(path, value);
            for query in [
                "",
                "?unknown=1",
                "?partition=x&offset=-1",
                "?limit=99999999999",
            ] {
                let headers = [HOST, ("Authorization", token.as_str())];
                let (status, body) =
                    host.admin(&request("GET", &format!("{path}{query}"), &headers));
                assert!(
                    (200..500).contains(&status),
                    "{path}{query}: {status} {body}"
                );
                assert!(!body.contains("root:"), "{path}{query}");
            }
        }
    }
}

#[test]
fn no_route_knows_a_method_that_is_not_described() {
    let host = host();
    let token = format!("Bearer {}", host.token());
    let described = routes();
    for route in &described {
        for method in ["PUT", "DELETE", "PATCH", "POST", "GET"] {
            let known = described
                .iter()
                .any(|other| other.path == route.path && other.method == method);
            if known {
                continue;
            }
            let headers = [
                HOST,
                ("Authorization", token.as_str()),
                ("Content-Length", "0"),
            ];
            let (status, _) = host.admin(&request(method, &route.path, &headers));
            assert_eq!(status, 405, "{method} {}", route.path);
        }
    }
}
