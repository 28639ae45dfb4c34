//! What `wasmill new rust` makes: the handler passes its own tests, and no file of the SDK is missing.

#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

#[path = "../../../host/templates/rust.rs"]
mod files;
#[path = "../../../host/templates/rust/src/lib.rs"]
mod handler;

use std::path::Path;

#[test]
fn the_new_project_gets_every_file_of_the_sdk() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copied: Vec<&str> = files::SDK_FILES.iter().map(|(path, _)| *path).collect();
    for folder in ["src", "macros/src"] {
        for entry in std::fs::read_dir(sdk.join(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = format!(".wasmill/sdk/{folder}/{}", name.to_string_lossy());
            assert!(copied.contains(&path.as_str()), "{path} is missing");
        }
    }
    for (path, text) in files::SDK_FILES {
        let original = path.strip_prefix(".wasmill/sdk/").unwrap();
        let original = std::fs::read_to_string(sdk.join(original)).unwrap();
        assert_eq!(*text, original, "{path}");
    }
}

#[test]
fn nothing_but_the_name_is_left_to_be_filled_in() {
    for (path, text) in files::FILES {
        let filled = text.replace("{{name}}", "hello");
        assert!(!filled.contains("{{") || path.ends_with(".rs"), "{path}");
    }
}

#[test]
fn the_sdk_inherits_nothing_from_a_workspace_it_would_not_have() {
    for (path, text) in files::SDK_FILES {
        let is_manifest = path.ends_with("Cargo.toml");
        assert!(!is_manifest || !text.contains("workspace = true"), "{path}");
    }
}
