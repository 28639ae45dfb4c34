//! `#[wasmill_sdk::handler]`: exports a plain function as the component's handler. It only finds the
//! function's name; whether the signature fits is left to the compiler, which says it better.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// Stands for the user's function in [`EXPORTS`].
const PLACEHOLDER: &str = "__wasmill_handler_placeholder";

/// What follows the function. The component model takes the two exports by these names
/// (wit/handler.wit, interface `framed`). Elsewhere than on wasm only the signature is checked.
const EXPORTS: &str = r#"
const _: () = {
    #[cfg(target_family = "wasm")]
    #[unsafe(export_name = "wasmill:handler/framed@0.1.0#handle")]
    extern "C" fn handle_frame(frame: *const u8, len: usize) -> *const ::wasmill_sdk::__private::Returned {
        unsafe { ::wasmill_sdk::__private::handle(frame, len, __wasmill_handler_placeholder) }
    }
    #[cfg(target_family = "wasm")]
    #[unsafe(export_name = "wasmill:handler/framed@0.1.0#frame-version")]
    extern "C" fn frame_version() -> u32 {
        ::wasmill_sdk::__private::frame_version()
    }
    #[cfg(not(target_family = "wasm"))]
    const _: fn() = || ::wasmill_sdk::__private::check_signature(__wasmill_handler_placeholder);
};
"#;

/// Makes `fn handle(message: Message) -> Result<Outputs, Failure>` the handler of this plugin.
///
/// The function stays what it is, so tests call it directly. Use it once in a crate whose
/// `crate-type` is `cdylib`. The success type may be anything that converts into `Outputs` (`Output`,
/// `Vec<Output>`, `Option<Output>`, `()`), the error anything that converts into `Failure`.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let outcome = match arguments.into_iter().next() {
        Some(argument) => Err(Error::at(argument.span(), "#[handler] takes no arguments")),
        None => function_name(item.clone()).and_then(exports),
    };
    let mut expanded = item;
    expanded.extend(match outcome {
        Ok(exports) => exports,
        Err(error) => error.into_tokens(),
    });
    expanded
}

struct Error {
    span: Span,
    text: &'static str,
}

impl Error {
    fn at(span: Span, text: &'static str) -> Self {
        Self { span, text }
    }

    /// `compile_error! { "text" }` at the place of the mistake.
    fn into_tokens(self) -> TokenStream {
        let spanned = |mut token: TokenTree| {
            token.set_span(self.span);
            token
        };
        let text = spanned(Literal::string(self.text).into());
        let body = Group::new(Delimiter::Brace, text.into());
        TokenStream::from_iter([
            spanned(Ident::new("compile_error", self.span).into()),
            spanned(Punct::new('!', Spacing::Alone).into()),
            spanned(body.into()),
        ])
    }
}

/// The name after the first `fn` outside of brackets. `pub(in fn)` and attributes are groups, so
/// they cannot be mistaken for it.
fn function_name(item: TokenStream) -> Result<Ident, Error> {
    let mut tokens = item.into_iter();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(word) = token else {
            continue;
        };
        match word.to_string().as_str() {
            "async" => {
                return Err(Error::at(
                    word.span(),
                    "a handler is a plain fn: the host runs many calls at once, nothing in the guest waits",
                ));
            }
            "fn" => {
                return match tokens.next() {
                    Some(TokenTree::Ident(name)) => Ok(name),
                    _ => Err(Error::at(word.span(), "#[handler] needs a named function")),
                };
            }
            "struct" | "enum" | "impl" | "mod" | "trait" | "static" | "type" => {
                return Err(Error::at(word.span(), "#[handler] goes on a function"));
            }
            _ => {}
        }
    }
    Err(Error::at(
        Span::call_site(),
        "#[handler] goes on a function",
    ))
}

fn exports(name: Ident) -> Result<TokenStream, Error> {
    EXPORTS
        .parse()
        .map(|tokens| replace_placeholder(tokens, &name))
        .map_err(|_| {
            Error::at(
                name.span(),
                "bug in #[handler]: its own text does not parse",
            )
        })
}

/// The name keeps the span of the user's function, so a wrong signature is reported there.
fn replace_placeholder(tokens: TokenStream, name: &Ident) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Ident(word) if word.to_string() == PLACEHOLDER => name.clone().into(),
            TokenTree::Group(group) => {
                let inner = replace_placeholder(group.stream(), name);
                let mut replaced = Group::new(group.delimiter(), inner);
                replaced.set_span(group.span());
                replaced.into()
            }
            other => other,
        })
        .collect()
}
