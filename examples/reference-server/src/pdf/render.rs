//! A template and its data become a PDF.

use std::ops::Range;

use chrono::NaiveDate;
use serde_json::Value;
use typst::{
    World, WorldExt,
    diag::{SourceDiagnostic, Warned},
    foundations::Smart,
    syntax::{DiagSpan, FileId, LinkedNode, Side, Source, SyntaxKind, VirtualRoot},
};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, Timestamp};

use super::{
    error::{RenderError, TemplateProblem},
    templates::Templates,
    world::{Sandbox, day},
};

/// For how many renderings something that was computed is kept without being used again. What templates
/// have in common stays warm, what belonged to one contract goes.
const KEEP_FOR: usize = 8;

/// The pages of one document.
const MAX_PAGES: usize = 2_000;
/// The bytes of one document. With the page that says who signed, it can still be read again.
const MAX_BYTES: usize = 24 * 1024 * 1024;

/// A finished document.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pdf {
    /// The file.
    pub bytes: Vec<u8>,
    /// How many pages it has.
    pub pages: usize,
}

impl std::fmt::Debug for Pdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pdf")
            .field("bytes", &self.bytes.len())
            .field("pages", &self.pages)
            .finish()
    }
}

/// What to render.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RenderRequest<'a> {
    /// Name of the template, as `contract.typ`.
    pub template: &'a str,
    /// What the template reads from `/data.json`.
    pub data: &'a Value,
    /// The date that `datetime.today()` gives, and that the file bears. Take it from the execution, not
    /// from the clock, where a second attempt is to give the same bytes.
    pub today: NaiveDate,
}

impl<'a> RenderRequest<'a> {
    /// This template with this data, on this day.
    #[must_use]
    pub fn new(template: &'a str, data: &'a Value, today: NaiveDate) -> Self {
        Self {
            template,
            data,
            today,
        }
    }
}

/// Renders a template. The server calls it in a process of its own, through
/// [`Renderer`](crate::renders::Renderer).
///
/// # Errors
///
/// - [`RenderError::UnknownTemplate`]: there is none of that name.
/// - [`RenderError::MissingFields`]: the data does not fill a path that the template declares.
/// - [`RenderError::InvalidTemplate`]: Typst refuses the template, or the template refuses the data.
/// - [`RenderError::TooLarge`]: it has more than 2,000 pages or 24 MiB.
/// - [`RenderError::Export`]: the finished layout cannot be written as PDF.
///
/// ```
/// use chrono::NaiveDate;
/// use reference_server::pdf::{RenderError, RenderRequest, Templates, render};
/// use serde_json::json;
///
/// let today = NaiveDate::from_ymd_opt(2026, 1, 15).expect("a date");
/// let refused = render(&Templates::bundled(), RenderRequest::new("contract.typ", &json!({}), today));
/// assert!(matches!(refused, Err(RenderError::MissingFields { .. })));
/// ```
pub fn render(templates: &Templates, request: RenderRequest<'_>) -> Result<Pdf, RenderError> {
    let RenderRequest {
        template,
        data,
        today,
    } = request;
    let Some(main) = templates.main(template) else {
        return Err(RenderError::UnknownTemplate {
            name: template.to_owned(),
            known: templates.names().map(str::to_owned).collect(),
        });
    };
    let paths = templates.missing_fields(template, data);
    if !paths.is_empty() {
        return Err(RenderError::MissingFields {
            template: template.to_owned(),
            paths,
        });
    }
    typeset(templates, main, data, today, Tagging::Tagged)
}

/// Whether the PDF carries a structure tree for screen readers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tagging {
    Tagged,
    Untagged,
}

/// Sets the file `main`, whatever the data holds.
pub(super) fn typeset(
    templates: &Templates,
    main: FileId,
    data: &Value,
    today: NaiveDate,
    tagging: Tagging,
) -> Result<Pdf, RenderError> {
    let world = Sandbox::new(templates, main, data, today);
    let result = compile(&world, today, tagging);
    // Typst remembers what it computed, for the whole process and without a bound of its own.
    typst::comemo::evict(KEEP_FOR);
    result
}

fn compile(world: &Sandbox<'_>, today: NaiveDate, tagging: Tagging) -> Result<Pdf, RenderError> {
    let Warned {
        output,
        warnings: _,
    } = typst::compile::<PagedDocument>(world);
    let document = output.map_err(|errors| RenderError::InvalidTemplate {
        template: world.main().vpath().get_without_slash().to_owned(),
        problems: problems(world, &errors),
    })?;
    let pages = document.pages().len();
    if pages > MAX_PAGES {
        return Err(too_large(pages, "pages", MAX_PAGES));
    }
    let options = PdfOptions {
        creator: Smart::Custom(Some("docg reference server".into())),
        timestamp: day(today).map(Timestamp::new_utc),
        tagged: tagging == Tagging::Tagged,
        ..PdfOptions::default()
    };
    let bytes = typst_pdf::pdf(&document, &options).map_err(|errors| RenderError::Export {
        problems: problems(world, &errors),
    })?;
    if bytes.len() > MAX_BYTES {
        return Err(too_large(bytes.len(), "bytes", MAX_BYTES));
    }
    Ok(Pdf { bytes, pages })
}

fn too_large(count: usize, what: &str, most: usize) -> RenderError {
    RenderError::TooLarge(format!("it has {count} {what}, at most {most} are kept"))
}

fn problems(world: &Sandbox<'_>, errors: &[SourceDiagnostic]) -> Vec<TemplateProblem> {
    errors.iter().map(|error| problem(world, error)).collect()
}

fn problem(world: &Sandbox<'_>, error: &SourceDiagnostic) -> TemplateProblem {
    let place = place(world, error.span);
    TemplateProblem {
        file: error.span.id().map(file_name),
        line: place.as_ref().map(|place| place.line),
        column: place.as_ref().map(|place| place.column),
        excerpt: place.map(|place| place.excerpt),
        message: error.message.to_string(),
        hints: error.hints.iter().map(|hint| hint.v.to_string()).collect(),
    }
}

fn file_name(id: FileId) -> String {
    match id.root() {
        VirtualRoot::Project => id.vpath().get_without_slash().to_owned(),
        VirtualRoot::Package(package) => package.to_string(),
    }
}

struct Place {
    line: usize,
    column: usize,
    excerpt: String,
}

fn place(world: &Sandbox<'_>, span: DiagSpan) -> Option<Place> {
    let source = world.source(span.id()?).ok()?;
    let Range { start, end } = widened(&source, world.range(span)?);
    let (line, column) = source.lines().byte_to_line_column(start)?;
    let excerpt = source.text().get(start..end)?;
    let excerpt = excerpt.lines().next().unwrap_or_default().to_owned();
    Some(Place {
        line: line + 1,
        column: column + 1,
        excerpt,
    })
}

/// The whole of `data.customer.name` where Typst points at `name` alone: the path is what is looked for.
fn widened(source: &Source, range: Range<usize>) -> Range<usize> {
    let mut node = LinkedNode::new(source.root()).leaf_at(range.start, Side::After);
    let mut widest = range.clone();
    while let Some(found) = node {
        let whole = found.range();
        if found.kind() == SyntaxKind::FieldAccess && whole.end == range.end {
            widest = whole;
        }
        node = found.parent().cloned();
    }
    widest
}
