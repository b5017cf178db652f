//! Makes a PDF from a template and its data.

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

/// The number of renders for which Typst's cache keeps an unused result. Common parts of templates stay
/// cached; parts of one contract are dropped.
const KEEP_FOR: usize = 8;

/// The maximum number of pages in one document.
const MAX_PAGES: usize = 2_000;
/// The maximum size of one document, in bytes. It leaves room for the signature page: the file storage reads
/// no larger document than 32 MiB.
const MAX_BYTES: usize = 24 * 1024 * 1024;

/// A finished document.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pdf {
    /// The PDF file.
    pub bytes: Vec<u8>,
    /// The number of pages.
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

/// A template to render, with its data.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RenderRequest<'a> {
    /// The name of the template, as `contract.typ`.
    pub template: &'a str,
    /// The content of `/data.json`, which the template reads.
    pub data: &'a Value,
    /// The date that `datetime.today()` returns and that the PDF states as its date. Take it from the
    /// execution and not from the clock if a retry must make the same bytes.
    pub today: NaiveDate,
}

impl<'a> RenderRequest<'a> {
    /// Creates a request to render `template` with `data`, dated `today`.
    #[must_use]
    pub fn new(template: &'a str, data: &'a Value, today: NaiveDate) -> Self {
        Self {
            template,
            data,
            today,
        }
    }
}

/// Renders a template. The server calls it in a child process, through
/// [`Renderer`](crate::renders::Renderer).
///
/// # Errors
///
/// - [`RenderError::UnknownTemplate`]: there is no template of that name.
/// - [`RenderError::MissingFields`]: a path that the template declares is not filled.
/// - [`RenderError::InvalidTemplate`]: Typst rejects the template, or the template rejects the data.
/// - [`RenderError::TooLarge`]: the document has more than 2,000 pages or 24 MiB.
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

/// Selects whether the PDF has a structure tree for screen readers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tagging {
    Tagged,
    Untagged,
}

/// Renders the file `main` without checking the required fields.
pub(super) fn typeset(
    templates: &Templates,
    main: FileId,
    data: &Value,
    today: NaiveDate,
    tagging: Tagging,
) -> Result<Pdf, RenderError> {
    let world = Sandbox::new(templates, main, data, today);
    let result = compile(&world, today, tagging);
    // Evict here, because Typst's cache is shared by the whole process and has no bound of its own.
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

/// Widens Typst's range from `name` to the whole of `data.customer.name`: people look for the full path.
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
