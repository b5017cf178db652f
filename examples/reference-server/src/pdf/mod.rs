//! PDF documents, set by Typst from templates that come with the program.
//!
//! - [`Templates`]: what there is to render, and which data each template needs.
//! - [`render`]: a template and its data become a PDF.
//! - [`append_signature_page`]: who signed, when, and what, on a page after the original ones.
//!
//! A template is code, and the data is somebody else's: what a template can read ends at the bundled
//! files, the fonts in the program and the data that it is given. There is no file system, no package
//! and no clock behind it, so equal input gives equal bytes.
//!
//! Rendering is work for the processor, from tens of milliseconds up; it awaits nothing, and nothing interrupts
//! it. So the server calls it in processes of their own, through [`Renderer`](crate::renders::Renderer).
//!
//! Inside, `render` and `signature_page` use `world` (what a template sees), which uses `fonts` and
//! `templates`; `fields` knows only JSON.

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
