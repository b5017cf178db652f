//! Makes PDF documents with Typst, from templates that come with the program.
//!
//! - [`Templates`]: the templates, and the data that each one needs.
//! - [`render`]: makes a PDF from a template and its data.
//! - [`append_signature_page`]: adds a page that states who signed, when, and which document.
//!
//! A template is code, and the data comes from strangers. A template can therefore read only the bundled
//! files, the fonts in the program and its data. It has no file system, no packages and no clock, so equal
//! input gives equal bytes.
//!
//! Rendering is CPU work, from tens of milliseconds up. It never awaits and cannot be interrupted, so the
//! server runs it in child processes, through [`Renderer`](crate::renders::Renderer).
//!
//! Inside, `render` and `signature_page` use `world` (everything that a template sees), which uses `fonts`
//! and `templates`; `fields` knows only JSON.

mod bundle;
mod error;
mod fields;
mod fonts;
mod render;
mod signature_page;
mod templates;
mod world;

pub use error::{RENDER_TOO_LARGE, RenderError, TemplateProblem};
pub use render::{Pdf, RenderRequest, render};
pub use signature_page::{SignaturePage, SignedBy, append_signature_page};
pub use templates::{Declaration, MOST_MISSING, Templates, TemplatesError};

#[cfg(test)]
mod tests;
