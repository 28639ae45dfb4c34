//! `wasmill schema`: the JSON Schema of the configuration, for editors and CI.

use super::error::Error;
use super::output::Out;

pub(super) fn run(out: &mut Out) -> Result<(), Error> {
    out.json(&crate::config::schema())
}
