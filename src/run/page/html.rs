//! The page as HTML. Owns the one place where text becomes part of it: whatever the template names is escaped here, and what a
//! terminal or a reader would obey is made visible. Only our own styles and pictures are markup.

use crate::error::{Error, Kind, Result};
use crate::run::plot;
use crate::run::quote::visible;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, HtmlEscape, Output, State, UndefinedBehavior, Value, context};
use serde::Serialize;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");

/// The whole page.
///
/// # Errors
/// A template that does not fit what it is given.
pub(super) fn page(page: &impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_formatter(escaped);
    let style = format!("{STYLE}{}", plot::dark_style("figure"));
    let page = Value::from(Serde(page));
    let rendered = environment.render_named_str("report.html", TEMPLATE, context! { page, style });
    rendered.map_err(|e| Error::new(Kind::Internal, format!("the report cannot be made: {e}")))
}

fn escaped(out: &mut Output, _: &mut State, value: &Value) -> std::result::Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) if value.is_safe() => out.write_str(text)?,
        Some(text) => write!(out, "{}", HtmlEscape(&visible(text)))?,
        None => write!(out, "{}", HtmlEscape(&visible(&value.to_string())))?,
    }
    Ok(())
}
