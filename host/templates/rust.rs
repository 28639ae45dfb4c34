//! The files of `wasmill new rust NAME`: where each goes in the new project, and its text. In texts
//! `{{name}}` stands for the project's name. The SDK is not published yet, so its sources go along.
//! Not here: the command.

/// Path in the project, text.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("rust/Cargo.toml")),
    ("src/lib.rs", include_str!("rust/src/lib.rs")),
    ("pipeline.yaml", include_str!("rust/pipeline.yaml")),
    ("README.md", include_str!("rust/README.md")),
    (".gitignore", include_str!("rust/gitignore")),
];

/// Path in the project, text. Copied as they are, without replacing anything.
pub(crate) const SDK_FILES: &[(&str, &str)] = &[
    (
        ".wasmill/sdk/Cargo.toml",
        include_str!("../../guest-sdk/rust/Cargo.toml"),
    ),
    (
        ".wasmill/sdk/src/abi.rs",
        include_str!("../../guest-sdk/rust/src/abi.rs"),
    ),
    (
        ".wasmill/sdk/src/clock.rs",
        include_str!("../../guest-sdk/rust/src/clock.rs"),
    ),
    (
        ".wasmill/sdk/src/config.rs",
        include_str!("../../guest-sdk/rust/src/config.rs"),
    ),
    (
        ".wasmill/sdk/src/dispatch.rs",
        include_str!("../../guest-sdk/rust/src/dispatch.rs"),
    ),
    (
        ".wasmill/sdk/src/failure.rs",
        include_str!("../../guest-sdk/rust/src/failure.rs"),
    ),
    (
        ".wasmill/sdk/src/frame.rs",
        include_str!("../../guest-sdk/rust/src/frame.rs"),
    ),
    (
        ".wasmill/sdk/src/headers.rs",
        include_str!("../../guest-sdk/rust/src/headers.rs"),
    ),
    (
        ".wasmill/sdk/src/lib.rs",
        include_str!("../../guest-sdk/rust/src/lib.rs"),
    ),
    (
        ".wasmill/sdk/src/log.rs",
        include_str!("../../guest-sdk/rust/src/log.rs"),
    ),
    (
        ".wasmill/sdk/src/message.rs",
        include_str!("../../guest-sdk/rust/src/message.rs"),
    ),
    (
        ".wasmill/sdk/src/output.rs",
        include_str!("../../guest-sdk/rust/src/output.rs"),
    ),
    (
        ".wasmill/sdk/src/outputs.rs",
        include_str!("../../guest-sdk/rust/src/outputs.rs"),
    ),
    (
        ".wasmill/sdk/src/random.rs",
        include_str!("../../guest-sdk/rust/src/random.rs"),
    ),
    (
        ".wasmill/sdk/src/spare.rs",
        include_str!("../../guest-sdk/rust/src/spare.rs"),
    ),
    (
        ".wasmill/sdk/src/stand_in.rs",
        include_str!("../../guest-sdk/rust/src/stand_in.rs"),
    ),
    (
        ".wasmill/sdk/src/state.rs",
        include_str!("../../guest-sdk/rust/src/state.rs"),
    ),
    (
        ".wasmill/sdk/src/testing.rs",
        include_str!("../../guest-sdk/rust/src/testing.rs"),
    ),
    (
        ".wasmill/sdk/macros/Cargo.toml",
        include_str!("../../guest-sdk/rust/macros/Cargo.toml"),
    ),
    (
        ".wasmill/sdk/macros/src/lib.rs",
        include_str!("../../guest-sdk/rust/macros/src/lib.rs"),
    ),
];
