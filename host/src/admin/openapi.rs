//! The description of the admin port's routes (OpenAPI), made of what stands beside each handler in
//! `routes.rs`. Served at `/openapi.json` and committed as docs/openapi.json.

use utoipa::PartialSchema;
use utoipa::ToSchema;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Info, OpenApi, Ref, ResponseBuilder};

use super::error::Error;
use super::routes;

const TOKEN: &str = "token";

/// All routes, with what holds for each of them: the token, and how it fails.
#[must_use]
pub fn describe() -> OpenApi {
    let (_, mut openapi) = routes::described();
    openapi.info = Info::new("wasmill admin port", env!("CARGO_PKG_VERSION"));
    openapi.info.description = Some(
        "Every request carries `Authorization: Bearer TOKEN`; the token is in the file admin-token of the host's data directory. Bodies are JSON.".to_owned(),
    );
    openapi.servers = None;
    let components = openapi.components.get_or_insert_default();
    components.add_security_scheme(
        TOKEN,
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
    );
    components
        .schemas
        .insert(Error::name().into_owned(), Error::schema());
    let mut nested = Vec::new();
    Error::schemas(&mut nested);
    components.schemas.extend(nested);
    for item in openapi.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.put,
            &mut item.delete,
        ];
        operations.into_iter().flatten().for_each(guarded);
    }
    openapi
}

fn guarded(operation: &mut Operation) {
    let no_scopes: [String; 0] = [];
    operation.security = Some(vec![SecurityRequirement::new(TOKEN, no_scopes)]);
    let failure = ResponseBuilder::new()
        .description("what went wrong and what to do")
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(Error::name())))
                .build(),
        )
        .build();
    operation
        .responses
        .responses
        .insert("default".to_owned(), failure.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_in_docs_is_in_step_with_the_routes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let made = describe().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("WASMILL_BLESS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == made,
            "docs/openapi.json is not what the routes say; run `WASMILL_BLESS=1 cargo test -p wasmill --lib openapi` and look at the difference"
        );
    }

    #[test]
    fn every_operation_names_its_token_its_failure_and_what_it_gives() {
        let openapi = describe();
        assert!(openapi.paths.paths.len() >= 10);
        for (path, item) in &openapi.paths.paths {
            let operations = [&item.get, &item.post, &item.put, &item.delete];
            for operation in operations.into_iter().flatten() {
                assert!(operation.security.is_some(), "{path}");
                assert!(
                    operation.responses.responses.contains_key("default"),
                    "{path}"
                );
                assert!(operation.responses.responses.len() >= 2, "{path}");
            }
        }
    }
}
